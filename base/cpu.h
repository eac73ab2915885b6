/* cpu.h - facts about the machine: how many threads suit it, what memory there is and is used. */
#ifndef BASE_CPU_H
#define BASE_CPU_H
#include <stddef.h>

/* Physical cores this process may use: one per core within its affinity mask, no more than its
 * cgroup's CPU quota (rounded down, at least 1). OMP_NUM_THREADS, when set, replaces the count. */
int cpu_default_threads(void);
/* "Intel(R) Xeon(R) Processor", or "unknown CPU". The text lives for the process. */
const char *cpu_name(void);

size_t mem_available(void);     /* bytes the kernel can give, cgroup limit included; 0: unknown */
size_t mem_peak_rss(void);      /* most resident bytes this process ever had */
size_t mem_rss(void);           /* resident bytes now */

double clock_ms(void);          /* monotonic */

#endif
