#include "base/cpu.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

double clock_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* The first line of a file without its newline; 0, or -1 when it cannot be read. */
static int first_line(const char *path, char *buf, int size) {
    FILE *f = fopen(path, "r");
    if (!f) return -1;
    char *got = fgets(buf, size, f);
    fclose(f);
    if (!got) return -1;
    buf[strcspn(buf, "\n")] = 0;
    return 0;
}

/* A core is counted once: at its first hardware thread that the affinity mask holds. */
static int cores_in_affinity(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set)) return (int)sysconf(_SC_NPROCESSORS_ONLN);
    int cores = 0;
    for (int c = 0; c < CPU_SETSIZE; c++) {
        if (!CPU_ISSET(c, &set)) continue;
        char path[96], list[256];
        snprintf(path, sizeof path,
                 "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", c);
        int first = c;
        if (!first_line(path, list, sizeof list))   /* "0,64" or "0-1": this thread's siblings */
            for (char *p = list; *p;) {
                char *end;
                int a = (int)strtol(p, &end, 10), b = a;
                if (end == p) break;
                if (*end == '-') b = (int)strtol(end + 1, &end, 10);
                for (int s = a; s <= b && s < CPU_SETSIZE; s++)
                    if (s >= 0 && s < first && CPU_ISSET(s, &set)) first = s;
                p = *end == ',' ? end + 1 : end;
            }
        cores += first == c;
    }
    return cores > 0 ? cores : 1;
}

/* The cgroup of this process below `root`, for version 2 ("0::/path") or a version 1 controller. */
static int cgroup_path(const char *controller, char *buf, size_t size) {
    FILE *f = fopen("/proc/self/cgroup", "r");
    char line[512];
    int found = -1;
    while (f && found && fgets(line, sizeof line, f)) {
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path) continue;
        *path++ = 0;
        path[strcspn(path, "\n")] = 0;
        if (controller ? strstr(names + 1, controller) != NULL : !names[1]) {
            snprintf(buf, size, "%s", path);
            found = 0;
        }
    }
    if (f) fclose(f);
    return found;
}

/* The smallest value `read` gives for a cgroup and its ancestors; a limit above us binds us too. */
static double cgroup_least(const char *root, char *path, double (*read)(const char *dir)) {
    double least = 0;
    for (;;) {
        char dir[1024];
        snprintf(dir, sizeof dir, "%s%s", root, strcmp(path, "/") ? path : "");
        double v = read(dir);
        if (v > 0 && (least == 0 || v < least)) least = v;
        char *slash = strrchr(path, '/');
        if (!slash || !*path) return least;
        *slash = 0;
    }
}

static double quota_v2(const char *dir) {
    char file[1100], line[64];
    double quota, period;
    snprintf(file, sizeof file, "%s/cpu.max", dir);
    if (first_line(file, line, sizeof line) || sscanf(line, "%lf %lf", &quota, &period) != 2)
        return 0;
    return period > 0 ? quota / period : 0;
}

static double quota_v1(const char *dir) {
    char file[1100], line[64];
    snprintf(file, sizeof file, "%s/cpu.cfs_quota_us", dir);
    if (first_line(file, line, sizeof line)) return 0;
    double quota = atof(line);
    snprintf(file, sizeof file, "%s/cpu.cfs_period_us", dir);
    if (quota <= 0 || first_line(file, line, sizeof line) || atof(line) <= 0) return 0;
    return quota / atof(line);
}

static double memory_v2(const char *dir) {
    char file[1100], line[64];
    snprintf(file, sizeof file, "%s/memory.max", dir);
    if (first_line(file, line, sizeof line) || !strcmp(line, "max")) return 0;
    double max = atof(line);
    snprintf(file, sizeof file, "%s/memory.current", dir);
    double used = first_line(file, line, sizeof line) ? 0 : atof(line);
    return max > used ? max - used : 1;
}

int cpu_default_threads(void) {
    const char *omp = getenv("OMP_NUM_THREADS");
    if (omp && atoi(omp) > 0) return atoi(omp);
    int n = cores_in_affinity();
    char path[512];
    double quota = 0;
    if (!cgroup_path(NULL, path, sizeof path))
        quota = cgroup_least("/sys/fs/cgroup", path, quota_v2);
    if (quota <= 0 && !cgroup_path("cpu", path, sizeof path))
        quota = cgroup_least("/sys/fs/cgroup/cpu", path, quota_v1);
    if (quota > 0 && quota < n) n = quota < 1 ? 1 : (int)quota;
    return n;
}

const char *cpu_name(void) {
    static char name[128];
    if (*name) return name;
    strcpy(name, "unknown CPU");
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (f && fgets(line, sizeof line, f)) {
        char *value = strstr(line, ": ");
        if (strncmp(line, "model name", 10) || !value) continue;
        value[strcspn(value, "\n")] = 0;
        snprintf(name, sizeof name, "%.*s", (int)sizeof name - 1, value + 2);
        break;
    }
    if (f) fclose(f);
    return name;
}

/* A line "Field:  N kB" of a file in /proc, in bytes; 0 when absent. */
static size_t proc_kb(const char *path, const char *field) {
    FILE *f = fopen(path, "r");
    char line[256];
    size_t kb = 0, n = strlen(field);
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, field, n) && line[n] == ':') {
            kb = strtoull(line + n + 1, NULL, 10);
            break;
        }
    if (f) fclose(f);
    return kb * 1024;
}

size_t mem_available(void) {
    size_t host = proc_kb("/proc/meminfo", "MemAvailable");
    char path[512];
    double limit = cgroup_path(NULL, path, sizeof path)
                 ? 0 : cgroup_least("/sys/fs/cgroup", path, memory_v2);
    return limit > 0 && limit < (double)host ? (size_t)limit : host;
}

size_t mem_peak_rss(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) ? 0 : (size_t)u.ru_maxrss * 1024;
}

size_t mem_rss(void) { return proc_kb("/proc/self/status", "VmRSS"); }
