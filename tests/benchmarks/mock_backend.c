// SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
/* A mock of an OpenAI backend that is not the bottleneck: one thread, epoll, nothing parsed twice.

     mock_backend PORT

   Every POST is a chat. Its answer is " tok000 tok001 ...", max_tokens of them (64 unless given, at
   most MAX_TOKENS), whole or streamed; a stream's tokens are written one at a time. `seed` is the
   pace of a stream: milliseconds between two tokens, 0 or none for as fast as the reader reads.
   A whole answer comes at once. Usage is in whole answers and, where stream_options.include_usage
   asks for it, in a stream's last event; a prompt token is a word of a message's content.
   GET /counters tells what is done now; every other GET lists the model. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FILES 70000
#define MAX_TOKENS 8192
#define TOKEN_BYTES 7 /* " tok000" */
#define READ_BYTES 16384
#define BACKLOG_BYTES 65536 /* a stream whose reader is further behind waits */
#define NOWHERE -1

#define JSON_HEAD "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n"
#define CHUNK_HEAD                                                                                 \
  "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\","              \
  "\"created\":1700000000,\"model\":\"mock\",\"system_fingerprint\":\"fp_mock\",\"choices\":["
#define USAGE "\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d}"

static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
static const char MODELS[] =
    "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\",\"created\":1700000000,"
    "\"owned_by\":\"mock\"}],\"status\":\"ok\",\"model_path\":\"mock\",\"model_id\":\"mock\","
    "\"served_model_name\":\"mock\",\"is_generation\":true,\"tokenizer_path\":\"mock\","
    "\"dp_size\":1,\"tp_size\":1,\"version\":\"0.5\"}";

struct connection {
  char *in;
  int in_length, in_room;
  char *out; /* what the socket did not take yet is from out_sent to out_length */
  int out_length, out_room, out_sent;
  int waits_for_room;
  int left, sent; /* tokens of the stream that runs; none runs when left is 0 */
  int prompt_tokens, wants_usage;
  int64_t pace_us, due_us;
  int in_heap, in_ready; /* where it stands among the paced and the unpaced streams */
};

static struct connection *connections[MAX_FILES];
static int paced[MAX_FILES], paced_count; /* a heap of files by due_us */
static int ready[MAX_FILES], ready_count;
static int poller;
static long answers, tokens_written;
static char all_tokens[MAX_TOKENS * TOKEN_BYTES + 1];

static int64_t now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static int64_t due(int place) { return connections[paced[place]]->due_us; }

static void swap(int a, int b) {
  int file = paced[a];
  paced[a] = paced[b];
  paced[b] = file;
  connections[paced[a]]->in_heap = a;
  connections[paced[b]]->in_heap = b;
}

static void sift_up(int place) {
  for (int parent; place > 0 && due(parent = (place - 1) / 2) > due(place); place = parent)
    swap(place, parent);
}

static void sift_down(int place) {
  for (;;) {
    int left = 2 * place + 1, least = place;
    if (left < paced_count && due(left) < due(least)) least = left;
    if (left + 1 < paced_count && due(left + 1) < due(least)) least = left + 1;
    if (least == place) return;
    swap(place, least);
    place = least;
  }
}

static void add_paced(int file) {
  paced[paced_count] = file;
  connections[file]->in_heap = paced_count;
  sift_up(paced_count++);
}

static void remove_paced(int file) {
  int place = connections[file]->in_heap;
  if (place == NOWHERE) return;
  if (place != --paced_count) {
    swap(place, paced_count);
    sift_down(place);
    sift_up(place);
  }
  connections[file]->in_heap = NOWHERE;
}

static void add_ready(int file) {
  connections[file]->in_ready = ready_count;
  ready[ready_count++] = file;
}

static void remove_ready(int file) {
  int place = connections[file]->in_ready;
  if (place == NOWHERE) return;
  ready[place] = ready[--ready_count];
  connections[ready[place]]->in_ready = place;
  connections[file]->in_ready = NOWHERE;
}

static void watch(int file, uint32_t events, int operation) {
  struct epoll_event event = {events, {.fd = file}};
  epoll_ctl(poller, operation, file, &event);
}

static void close_connection(int file) {
  struct connection *c = connections[file];
  remove_paced(file);
  remove_ready(file);
  close(file);
  free(c->in);
  free(c->out);
  free(c);
  connections[file] = NULL;
}

/* Returns -1 if the connection is broken. */
static int write_out(int file, const char *bytes, int count) {
  struct connection *c = connections[file];
  if (c->out_length == c->out_sent) {
    ssize_t taken = send(file, bytes, count, MSG_NOSIGNAL);
    if (taken == count) return 0;
    if (taken < 0 && errno != EAGAIN) return -1;
    if (taken < 0) taken = 0;
    bytes += taken;
    count -= taken;
    c->out_length = c->out_sent = 0;
  }
  if (c->out_length + count > c->out_room) {
    c->out_room = (c->out_length + count) * 2;
    c->out = realloc(c->out, c->out_room);
  }
  memcpy(c->out + c->out_length, bytes, count);
  c->out_length += count;
  if (!c->waits_for_room) {
    c->waits_for_room = 1;
    watch(file, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
  }
  return 0;
}

static int write_more(int file) {
  struct connection *c = connections[file];
  ssize_t taken = send(file, c->out + c->out_sent, c->out_length - c->out_sent, MSG_NOSIGNAL);
  if (taken < 0) return errno == EAGAIN ? 0 : -1;
  c->out_sent += taken;
  if (c->out_sent == c->out_length) {
    c->out_length = c->out_sent = c->waits_for_room = 0;
    watch(file, EPOLLIN, EPOLL_CTL_MOD);
  }
  return 0;
}

static int write_json(int file, const char *body) {
  char head[256];
  int length = sprintf(head, JSON_HEAD, strlen(body));
  if (write_out(file, head, length) < 0) return -1;
  return write_out(file, body, strlen(body));
}

static int write_whole(int file, int tokens, int prompt_tokens) {
  static char answer[MAX_TOKENS * TOKEN_BYTES + 1024], body[sizeof answer - 256];
  int length = sprintf(body,
      "{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion\",\"created\":1700000000,"
      "\"model\":\"mock\",\"system_fingerprint\":\"fp_mock\",\"choices\":[{\"index\":0,"
      "\"message\":{\"role\":\"assistant\",\"content\":\"%.*s\"},\"logprobs\":null,"
      "\"finish_reason\":\"stop\"}]," USAGE "}",
      tokens * TOKEN_BYTES, all_tokens, prompt_tokens, tokens, prompt_tokens + tokens);
  int head = sprintf(answer, JSON_HEAD, (size_t)length);
  memcpy(answer + head, body, length);
  answers++;
  return write_out(file, answer, head + length);
}

/* Appends `text` as one chunk of HTTP; returns the bytes added. */
static int chunk(char *to, const char *text, int length) {
  int head = sprintf(to, "%x\r\n", length);
  memcpy(to + head, text, length);
  memcpy(to + head + length, "\r\n", 2);
  return head + length + 2;
}

static int token_event(char *to, int number) {
  char text[512];
  int length = sprintf(text,
      CHUNK_HEAD "{\"index\":0,\"delta\":{%s\"content\":\"%.*s\"},\"logprobs\":null,"
                 "\"finish_reason\":null}]}\n\n",
      number ? "" : "\"role\":\"assistant\",", TOKEN_BYTES,
      all_tokens + number % MAX_TOKENS * TOKEN_BYTES);
  return chunk(to, text, length);
}

static int last_events(char *to, const struct connection *c) {
  char text[1024];
  int length = sprintf(text, CHUNK_HEAD "{\"index\":0,\"delta\":{},\"logprobs\":null,"
                                        "\"finish_reason\":\"stop\"}]}\n\n");
  if (c->wants_usage)
    length += sprintf(text + length, CHUNK_HEAD "]," USAGE "}\n\n", c->prompt_tokens, c->sent,
                      c->prompt_tokens + c->sent);
  length += sprintf(text + length, "data: [DONE]\n\n");
  int added = chunk(to, text, length);
  memcpy(to + added, "0\r\n\r\n", 5);
  return added + 5;
}

/* Writes a stream's next token, with what comes before the first and after the last. */
static int write_token(int file) {
  struct connection *c = connections[file];
  char bytes[2560];
  int length = 0;
  if (c->sent == 0) {
    length = sizeof STREAM_HEAD - 1;
    memcpy(bytes, STREAM_HEAD, length);
  }
  length += token_event(bytes + length, c->sent++);
  tokens_written++;
  if (--c->left == 0) {
    length += last_events(bytes + length, c);
    answers++;
  }
  return write_out(file, bytes, length);
}

/* Returns where a field's value begins, or NULL. The first field of that name counts. */
static const char *field(const char *body, int length, const char *name) {
  const char *end = body + length, *at = memmem(body, length, name, strlen(name));
  if (!at) return NULL;
  at += strlen(name);
  while (at < end && (*at == ' ' || *at == ':')) at++;
  return at < end ? at : NULL;
}

static int number(const char *body, int length, const char *name, int otherwise) {
  const char *at = field(body, length, name);
  return at && *at >= '0' && *at <= '9' ? atoi(at) : otherwise;
}

static int is_true(const char *body, int length, const char *name) {
  const char *at = field(body, length, name);
  return at && at + 4 <= body + length && !memcmp(at, "true", 4);
}

static int words(const char *body, int length) {
  static const char NAME[] = "\"content\"";
  const char *end = body + length;
  int found = 0;
  for (const char *at; body < end && (at = field(body, end - body, NAME)); body = at) {
    if (*at++ != '"') continue;
    for (int inside = 0; at < end && *at != '"'; at++) {
      if (*at == '\\') at++;
      if (*at != ' ' && !inside) found++;
      inside = *at != ' ';
    }
  }
  return found;
}

static int answer_get(int file, const char *request) {
  char body[256];
  if (strncmp(request, "GET /counters ", 14)) return write_json(file, MODELS);
  sprintf(body, "{\"streams\":%d,\"answers\":%ld,\"tokens\":%ld}", paced_count + ready_count,
          answers, tokens_written);
  return write_json(file, body);
}

static int answer_post(int file, const char *body, int length) {
  struct connection *c = connections[file];
  int tokens = number(body, length, "\"max_tokens\"", 64);
  tokens = tokens < 1 ? 1 : tokens > MAX_TOKENS ? MAX_TOKENS : tokens;
  if (!is_true(body, length, "\"stream\""))
    return write_whole(file, tokens, words(body, length));
  c->wants_usage = is_true(body, length, "\"include_usage\"");
  c->prompt_tokens = c->wants_usage ? words(body, length) : 0;
  c->left = tokens;
  c->sent = 0;
  c->pace_us = number(body, length, "\"seed\"", 0) * 1000LL;
  if (write_token(file) < 0) return -1;
  if (c->left && c->pace_us) {
    c->due_us = now_us() + c->pace_us;
    add_paced(file);
  } else if (c->left) {
    add_ready(file);
  }
  return 0;
}

/* Returns the bytes of the first request's body, -1 if they are not all here. */
static int body_length(struct connection *c, int head) {
  char *length = NULL, *chunked = NULL;
  c->in[head - 1] = 0;
  length = strcasestr(c->in, "\r\ncontent-length:");
  chunked = strcasestr(c->in, "\r\ntransfer-encoding:");
  c->in[head - 1] = '\n';
  if (length) return head + atoi(length + 17) <= c->in_length ? atoi(length + 17) : -1;
  if (!chunked) return 0;
  char *end = memmem(c->in + head, c->in_length - head, "0\r\n\r\n", 5);
  return end ? end + 5 - (c->in + head) : -1;
}

/* Answers what has come whole, one request after the other; returns -1 if the connection broke. */
static int take_requests(int file) {
  struct connection *c = connections[file];
  while (c->in_length && !c->left) {
    char *end = memmem(c->in, c->in_length, "\r\n\r\n", 4);
    if (!end) return 0;
    int head = end - c->in + 4, body = body_length(c, head);
    if (body < 0) return 0;
    int result = *c->in == 'G' ? answer_get(file, c->in) : answer_post(file, c->in + head, body);
    if (result < 0) return -1;
    c->in_length -= head + body;
    memmove(c->in, c->in + head + body, c->in_length);
  }
  return 0;
}

static int read_more(int file) {
  struct connection *c = connections[file];
  if (c->in_room - c->in_length < READ_BYTES) {
    c->in_room = c->in_room * 2 + 2 * READ_BYTES;
    c->in = realloc(c->in, c->in_room);
  }
  ssize_t count = recv(file, c->in + c->in_length, c->in_room - c->in_length - 1, 0);
  if (count == 0 || (count < 0 && errno != EAGAIN)) return -1;
  if (count < 0) return 0;
  c->in_length += count;
  return take_requests(file);
}

static void accept_all(int listener) {
  int one = 1;
  for (int file; (file = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
    if (file >= MAX_FILES) {
      close(file);
      continue;
    }
    setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct connection *c = calloc(1, sizeof *c);
    c->in_heap = c->in_ready = NOWHERE;
    connections[file] = c;
    watch(file, EPOLLIN, EPOLL_CTL_ADD);
  }
}

static void handle(int file, uint32_t events) {
  if (!connections[file]) return;
  if (events & EPOLLOUT && write_more(file) < 0) {
    close_connection(file);
    return;
  }
  if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && read_more(file) < 0) close_connection(file);
}

/* Writes a token of a stream; one that has ended makes room for the connection's next request. */
static void advance(int file) {
  struct connection *c = connections[file];
  if (write_token(file) < 0) {
    close_connection(file);
  } else if (c->left == 0) {
    remove_ready(file);
    remove_paced(file);
    if (take_requests(file) < 0) close_connection(file);
  } else if (c->in_heap != NOWHERE) {
    c->due_us += c->pace_us;
    sift_down(c->in_heap);
  }
}

static void advance_all(void) {
  for (int place = ready_count - 1; place >= 0; place--) {
    if (place >= ready_count) continue;
    struct connection *c = connections[ready[place]];
    if (c->out_length - c->out_sent <= BACKLOG_BYTES) advance(ready[place]);
  }
  if (!paced_count) return;
  for (int64_t now = now_us(); paced_count && due(0) <= now;) advance(paced[0]);
}

static int listen_on(int port) {
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons(port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096)) {
    perror("mock_backend");
    exit(1);
  }
  return listener;
}

/* Milliseconds until there is something to do; -1: nothing, until something comes. */
static int patience(void) {
  if (ready_count) return 0;
  if (!paced_count) return -1;
  int64_t left_us = due(0) - now_us();
  return left_us <= 0 ? 0 : (left_us + 999) / 1000;
}

int main(int count, char **words_given) {
  if (count != 2) {
    fprintf(stderr, "usage: mock_backend PORT\n");
    return 2;
  }
  for (int n = 0; n < MAX_TOKENS; n++) sprintf(all_tokens + n * TOKEN_BYTES, " tok%03d", n % 1000);
  signal(SIGPIPE, SIG_IGN);
  poller = epoll_create1(0);
  int listener = listen_on(atoi(words_given[1]));
  watch(listener, EPOLLIN, EPOLL_CTL_ADD);
  for (struct epoll_event events[256];;) {
    int found = epoll_wait(poller, events, 256, patience());
    for (int n = 0; n < found; n++) {
      if (events[n].data.fd == listener)
        accept_all(listener);
      else
        handle(events[n].data.fd, events[n].events);
    }
    advance_all();
  }
}
