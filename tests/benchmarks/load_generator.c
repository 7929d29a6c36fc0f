// SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
/* Keeps so many chats going at a server on this machine and says how it answered: one thread,
   epoll, about 13 us of processor time a request.

     load_generator PORT[,PORT...] PATH CONCURRENCY WARM_UP_S RAMP_S DURATION_S stream|whole TOKENS
                    PACE_MS MODEL KEY

   With several ports the chats are spread over them. The chats begin evenly over RAMP_S; what
   happens in the DURATION_S after ramp and warm-up counts. PACE_MS goes out as `seed`, which the
   mock backend takes for a stream's pace. Prints "begun" and "ended" at the borders of the time
   that counts, then one JSON object: times in ms, -1 where nothing was measured. An answer is
   `wrong` if its text is not " tok000 tok001 ..." with TOKENS of them, or if a stream ends without
   [DONE]; it is `failed` if its status is not 200 or the connection broke. Neither counts among
   `answers`.

   What comes is acknowledged at once. With the kernel's delayed acknowledgements a server that does
   not set TCP_NODELAY (sglang-router is one) holds a stream's second write back for 40 ms. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_BYTES 16384
#define TOKEN_DIGITS 3
#define MAX_PORTS 64

enum part { HEAD, BODY };
enum chunk { SIZE, SIZE_END, DATA, DATA_END, TRAILER };

struct chat {
  int file, port;
  enum part part;
  char head[HEAD_BYTES];
  int head_length;
  int status, is_chunked, closes;
  int64_t left; /* bytes of the body, or of the chunk that is read; -1: until the end */
  enum chunk chunk;
  int trailer_length;
  int matched, digits, number; /* of a token, which may be split over reads */
  int done_matched, is_done;
  int tokens, is_wrong;
  int64_t began_us, last_us;
};

struct samples {
  uint32_t *us;
  size_t count, room;
};

static struct samples latency, first_token, between_tokens;
static int poller, is_stream, wanted_tokens;
static int ports[MAX_PORTS], port_count;
static char request[8192];
static int request_length;
static int64_t from_us, until_us;
static long answers, failed, wrong, tokens, reconnected;

static int64_t now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static int counts(int64_t at_us) { return at_us >= from_us && at_us < until_us; }

static void add(struct samples *to, int64_t us) {
  if (to->count == to->room) {
    to->room = to->room ? to->room * 2 : 65536;
    to->us = realloc(to->us, to->room * sizeof *to->us);
  }
  to->us[to->count++] = us < 0 ? 0 : us;
}

static int by_size(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static double percentile_ms(const struct samples *of, double part) {
  return of->count ? of->us[(size_t)(part * (of->count - 1))] / 1000.0 : -1;
}

static void print_samples(const char *name, struct samples *of) {
  qsort(of->us, of->count, sizeof *of->us, by_size);
  printf("\"%s_p50_ms\":%.3f,\"%s_p99_ms\":%.3f,\"%s_max_ms\":%.3f,", name, percentile_ms(of, 0.5),
         name, percentile_ms(of, 0.99), name, percentile_ms(of, 1));
}

static void open_connection(struct chat *c) {
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons(c->port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct epoll_event event = {EPOLLIN, {.ptr = c}};
  int one = 1;
  c->file = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(c->file, (struct sockaddr *)&address, sizeof address)) {
    perror("load_generator: connect");
    exit(1);
  }
  setsockopt(c->file, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  fcntl(c->file, F_SETFL, O_NONBLOCK);
  epoll_ctl(poller, EPOLL_CTL_ADD, c->file, &event);
}

static void reopen(struct chat *c) {
  close(c->file);
  reconnected++;
  open_connection(c);
}

static void ask(struct chat *c, int64_t at_us) {
  c->part = HEAD;
  c->head_length = c->status = c->is_chunked = c->closes = 0;
  c->left = -1;
  c->chunk = SIZE;
  c->trailer_length = c->matched = c->digits = c->number = c->done_matched = c->is_done = 0;
  c->tokens = c->is_wrong = 0;
  c->began_us = c->last_us = at_us;
  if (send(c->file, request, request_length, MSG_NOSIGNAL) != request_length) failed++;
}

static void finish(struct chat *c, int64_t at_us) {
  if (counts(at_us)) {
    if (c->status != 200) {
      failed++;
    } else if (c->is_wrong || c->tokens != wanted_tokens || (is_stream && !c->is_done)) {
      wrong++;
    } else {
      answers++;
      add(&latency, at_us - c->began_us);
    }
  }
  if (c->closes) reopen(c);
  if (at_us < until_us) ask(c, at_us);
}

static void break_off(struct chat *c, int64_t at_us) {
  if (counts(at_us)) failed++;
  reopen(c);
  if (at_us < until_us) ask(c, at_us);
}

/* Takes a token whose number has been read; tokens must come in order, each once. */
static void take_token(struct chat *c, int64_t at_us) {
  if (c->number != c->tokens % 1000) c->is_wrong = 1;
  if (is_stream && counts(at_us)) {
    if (c->tokens == 0)
      add(&first_token, at_us - c->began_us);
    else
      add(&between_tokens, at_us - c->last_us);
    tokens++;
  }
  c->tokens++;
  c->last_us = at_us;
}

static void take_body(struct chat *c, const char *bytes, int count, int64_t at_us) {
  static const char TOKEN[] = " tok", DONE[] = "[DONE]";
  for (int n = 0; n < count; n++) {
    char byte = bytes[n];
    if (c->matched == sizeof TOKEN - 1 && byte >= '0' && byte <= '9') {
      c->number = c->number * 10 + byte - '0';
      if (++c->digits == TOKEN_DIGITS) {
        take_token(c, at_us);
        c->matched = c->digits = c->number = 0;
      }
    } else if (c->matched < (int)sizeof TOKEN - 1 && byte == TOKEN[c->matched]) {
      c->matched++;
    } else {
      c->matched = byte == ' ';
      c->digits = c->number = 0;
    }
    if (byte == DONE[c->done_matched]) {
      if (++c->done_matched == sizeof DONE - 1) {
        c->is_done = 1;
        c->done_matched = 0;
      }
    } else {
      c->done_matched = byte == '[';
    }
  }
}

/* Returns the bytes of `bytes` that belong to the head, or -1 if it goes on after them. */
static int take_head(struct chat *c, const char *bytes, int count) {
  int room = HEAD_BYTES - 1 - c->head_length, before = c->head_length;
  int taken = count < room ? count : room;
  memcpy(c->head + before, bytes, taken);
  c->head_length += taken;
  c->head[c->head_length] = 0;
  char *end = strstr(c->head, "\r\n\r\n");
  if (!end) return -1;
  *end = 0;
  c->status = atoi(c->head + 9);
  char *length = strcasestr(c->head, "\r\ncontent-length:");
  char *coding = strcasestr(c->head, "\r\ntransfer-encoding:");
  if (length) c->left = atoll(length + 17);
  c->is_chunked = coding && strcasestr(coding, "chunked");
  c->closes = strcasestr(c->head, "\r\nconnection: close") || (!c->is_chunked && c->left < 0);
  if (c->is_chunked) c->left = 0;
  c->part = BODY;
  return end - c->head + 4 - before;
}

static void take_size_digit(struct chat *c, char byte) {
  if (byte == ';') {
    c->chunk = SIZE_END;
  } else if (byte == '\n') {
    c->chunk = c->left ? DATA : TRAILER;
    c->trailer_length = 0;
  } else if (byte >= '0' && byte <= '9') {
    c->left = c->left * 16 + byte - '0';
  } else if ((byte | 32) >= 'a' && (byte | 32) <= 'f') {
    c->left = c->left * 16 + (byte | 32) - 'a' + 10;
  }
}

/* Takes one byte of what stands around the chunks; returns 1 if it is the answer's last. */
static int take_frame_byte(struct chat *c, char byte) {
  if (c->chunk == SIZE) {
    take_size_digit(c, byte);
  } else if (c->chunk == SIZE_END) {
    if (byte == '\n') take_size_digit(c, byte);
  } else if (c->chunk == DATA_END) {
    if (byte == '\n') c->chunk = SIZE;
  } else if (byte == '\n') {
    if (!c->trailer_length) return 1;
    c->trailer_length = 0;
  } else if (byte != '\r') {
    c->trailer_length++;
  }
  return 0;
}

/* Returns 1 when the answer is whole. */
static int take_chunks(struct chat *c, const char *bytes, int count, int64_t at_us) {
  for (int n = 0; n < count;) {
    if (c->chunk != DATA) {
      if (take_frame_byte(c, bytes[n++])) return 1;
      continue;
    }
    int part = count - n < c->left ? count - n : c->left;
    take_body(c, bytes + n, part, at_us);
    n += part;
    c->left -= part;
    if (!c->left) c->chunk = DATA_END;
  }
  return 0;
}

/* Returns 1 when the answer is whole. */
static int take(struct chat *c, const char *bytes, int count, int64_t at_us) {
  if (c->part == HEAD) {
    int head = take_head(c, bytes, count);
    if (head < 0) return 0;
    bytes += head;
    count -= head;
  }
  if (c->is_chunked) return take_chunks(c, bytes, count, at_us);
  take_body(c, bytes, count, at_us);
  if (c->left < 0) return 0;
  c->left -= count;
  return c->left <= 0;
}

static void read_more(struct chat *c) {
  static char bytes[262144];
  ssize_t count = recv(c->file, bytes, sizeof bytes, 0);
  if (count < 0 && errno == EAGAIN) return;
  int64_t at_us = now_us();
  int one = 1;
  setsockopt(c->file, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof one);
  if (count > 0) {
    if (take(c, bytes, count, at_us)) finish(c, at_us);
  } else if (count == 0 && c->part == BODY && !c->is_chunked && c->left < 0) {
    finish(c, at_us);
  } else {
    break_off(c, at_us);
  }
}

static void write_request(const char *path, int pace_ms, const char *model, const char *key) {
  char body[4096], seed[32] = "";
  if (pace_ms) sprintf(seed, ",\"seed\":%d", pace_ms);
  int length = snprintf(body, sizeof body,
      "{\"model\":\"%s\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful "
      "assistant.\"},{\"role\":\"user\",\"content\":\"Write one short paragraph about a fox, a dog "
      "and a river, please.\"}],\"max_tokens\":%d,\"temperature\":0.7%s%s}",
      model, wanted_tokens, is_stream ? ",\"stream\":true" : "", seed);
  request_length = snprintf(request, sizeof request,
      "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: load-generator/1\r\nAccept: */*\r\n"
      "Content-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
      path, key, length, body);
}

static double cpu_s(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return used.ru_utime.tv_sec + used.ru_stime.tv_sec +
         (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void say(const char *border) {
  puts(border);
  fflush(stdout);
}

/* Runs the chats until the end of the time that counts; returns our processor time in it. */
static double run(struct chat *chats, int concurrency, int64_t ramp_us, int64_t warm_up_us) {
  int64_t start_us = from_us - warm_up_us - ramp_us, at_us;
  double cpu_before_s = -1;
  int asked = 0;
  while ((at_us = now_us()) < until_us) {
    if (cpu_before_s < 0 && at_us >= from_us) {
      say("begun");
      cpu_before_s = cpu_s();
    }
    while (asked < concurrency && start_us + ramp_us * asked / concurrency <= at_us)
      ask(&chats[asked++], at_us);
    struct epoll_event events[512];
    int found = epoll_wait(poller, events, 512, asked < concurrency ? 1 : 10);
    for (int n = 0; n < found; n++) read_more(events[n].data.ptr);
  }
  say("ended");
  return cpu_s() - cpu_before_s;
}

int main(int count, char **given) {
  if (count != 12) {
    fprintf(stderr, "usage: load_generator PORT[,PORT...] PATH CONCURRENCY WARM_UP_S RAMP_S "
                    "DURATION_S stream|whole TOKENS PACE_MS MODEL KEY\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  for (char *word = strtok(given[1], ","); word && port_count < MAX_PORTS; word = strtok(NULL, ","))
    ports[port_count++] = atoi(word);
  int concurrency = atoi(given[3]);
  double warm_up_s = atof(given[4]), ramp_s = atof(given[5]), duration_s = atof(given[6]);
  is_stream = !strcmp(given[7], "stream");
  wanted_tokens = atoi(given[8]);
  write_request(given[2], atoi(given[9]), given[10], given[11]);
  poller = epoll_create1(0);
  struct chat *chats = calloc(concurrency, sizeof *chats);
  for (int n = 0; n < concurrency; n++) {
    chats[n].port = ports[n % port_count];
    open_connection(&chats[n]);
  }
  from_us = now_us() + (int64_t)((ramp_s + warm_up_s) * 1e6);
  until_us = from_us + (int64_t)(duration_s * 1e6);
  double used_s = run(chats, concurrency, ramp_s * 1e6, warm_up_s * 1e6);
  printf("{\"concurrency\":%d,\"answers\":%ld,\"failed\":%ld,\"wrong\":%ld,\"reconnected\":%ld,",
         concurrency, answers, failed, wrong, reconnected);
  printf("\"tokens\":%ld,\"duration_s\":%.3f,", tokens, duration_s);
  print_samples("latency", &latency);
  print_samples("first_token", &first_token);
  print_samples("between_tokens", &between_tokens);
  printf("\"generator_cpu\":%.3f}\n", used_s / duration_s);
  return 0;
}
