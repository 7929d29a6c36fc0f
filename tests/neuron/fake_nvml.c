// SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
/* Fake libnvidia-ml.so.1 for tests: its state is the file $FAKE_NVML, "key value" lines, read on
   each call: init_error, count_error, count, and for each card gpuN.error, gpuN.until_init,
   gpuN.temp, gpuN.temp_error and so on. Build: gcc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef int R; typedef struct dev { int i; } *D;
static struct dev devs[16];
typedef struct { unsigned long long total, free, used; } Mem;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } Mem2;
typedef struct { unsigned int gpu, memory; } Util;
typedef struct { unsigned int pid; unsigned long long used; unsigned int gi, ci; } Proc;
static long long get(const char *k, int i, long long d) {
  const char *f = getenv("FAKE_NVML"); char key[96], n[96]; long long v; if (!f) return d; FILE *h = fopen(f, "r"); if (!h) return d;
  if (i >= 0) snprintf(key, sizeof key, "gpu%d.%s", i, k); else snprintf(key, sizeof key, "%s", k);
  while (fscanf(h, "%95s %lld", n, &v) == 2) if (!strcmp(n, key)) { fclose(h); return v; } fclose(h); return d; }
#define OK 0
#define EINVAL_ 2
#define ENOSUP 3
#define ESMALL 7
#define ELOST 15
static long long inits; /* an error ends with the initialisation that until_init counts */
#define CHK(d) do { long long e = get("error", (d)->i, 0); if (e && inits < get("until_init", (d)->i, 999)) return (int)e; } while (0)
#define CHKV(d, k) do { CHK(d); long long e = get(k, (d)->i, 0); if (e) return (int)e; } while (0)
R nvmlInit_v2(void) { inits++; return (int)get("init_error", -1, OK); }
R nvmlInitWithFlags(unsigned f) { inits++; return (int)get("init_error", -1, OK); }
R nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(R r) { return r == ELOST ? "GPU is lost" : r == 9 ? "Driver Not Loaded" : r == 3 ? "Not Supported" : "Fake error"; }
R nvmlSystemGetDriverVersion(char *b, unsigned n) { snprintf(b, n, "999.42.01"); return OK; }
R nvmlSystemGetNVMLVersion(char *b, unsigned n) { snprintf(b, n, "13.999.42"); return OK; }
R nvmlSystemGetCudaDriverVersion_v2(int *v) { *v = 13010; return OK; }
R nvmlDeviceGetCount_v2(unsigned *n) { long long e = get("count_error", -1, 0); if (e) return (int)e; *n = (unsigned)get("count", -1, 2); return OK; }
R nvmlDeviceGetHandleByIndex_v2(unsigned i, D *d) { if (i >= (unsigned)get("count", -1, 2) || i > 15) return EINVAL_; devs[i].i = i; *d = &devs[i]; return OK; }
R nvmlDeviceGetIndex(D d, unsigned *i) { *i = d->i; return OK; }
R nvmlDeviceGetName(D d, char *b, unsigned n) { CHK(d); snprintf(b, n, "NVIDIA Fake H200 #%d", d->i); return OK; }
R nvmlDeviceGetUUID(D d, char *b, unsigned n) { CHK(d); snprintf(b, n, "GPU-00000000-0000-0000-0000-%012d", d->i); return OK; }
R nvmlDeviceGetHandleByUUID(const char *u, D *d) { unsigned i = atoi(u + strlen(u) - 4); return nvmlDeviceGetHandleByIndex_v2(i, d); }
R nvmlDeviceGetMemoryInfo(D d, Mem *m) { CHKV(d, "mem_error"); m->total = get("mem_total", d->i, 150754820096LL); m->used = get("mem_used", d->i, 1073741824LL); m->free = m->total - m->used; return OK; }
R nvmlDeviceGetMemoryInfo_v2(D d, Mem2 *m) { CHKV(d, "mem_error"); m->total = get("mem_total", d->i, 150754820096LL); m->used = get("mem_used", d->i, 1073741824LL); m->reserved = 0; m->free = m->total - m->used; return OK; }
R nvmlDeviceGetUtilizationRates(D d, Util *u) { CHKV(d, "util_error"); u->gpu = (unsigned)get("util", d->i, 37); u->memory = (unsigned)get("util_mem", d->i, 12); return OK; }
R nvmlDeviceGetTemperature(D d, int s, unsigned *t) { CHKV(d, "temp_error"); *t = (unsigned)get("temp", d->i, 45); return OK; }
/* nvidia-ml-py >= 13 calls nvmlDeviceGetTemperatureV with a versioned struct */
typedef struct { unsigned version; int sensorType; int temperature; } TempV; R nvmlDeviceGetTemperatureV(D d, TempV *t) { CHKV(d, "temp_error"); t->temperature = (int)get("temp", d->i, 45); return OK; }
R nvmlDeviceGetPowerUsage(D d, unsigned *p) { CHKV(d, "power_error"); *p = (unsigned)get("power_mw", d->i, 123456); return OK; }
R nvmlDeviceGetEnforcedPowerLimit(D d, unsigned *p) { CHK(d); *p = 700000; return OK; }
R nvmlDeviceGetPowerManagementLimit(D d, unsigned *p) { CHK(d); *p = 700000; return OK; }
R nvmlDeviceGetFanSpeed(D d, unsigned *p) { return ENOSUP; }
R nvmlDeviceGetCudaComputeCapability(D d, int *a, int *b) { CHK(d); *a = 9; *b = 0; return OK; }
static R procs(D d, unsigned *n, Proc *p) { CHK(d); unsigned want = (unsigned)get("procs", d->i, 1); if (*n < want || !p) { *n = want; return want ? ESMALL : OK; }
  for (unsigned k = 0; k < want; k++) { p[k].pid = 4242 + k; p[k].used = 536870912ULL * (k + 1); p[k].gi = p[k].ci = 0xFFFFFFFF; } *n = want; return OK; }
R nvmlDeviceGetComputeRunningProcesses_v3(D d, unsigned *n, Proc *p) { return procs(d, n, p); }
R nvmlDeviceGetGraphicsRunningProcesses_v3(D d, unsigned *n, Proc *p) { *n = 0; return OK; }
