#include "base/threads.h"
#include <stdlib.h>
#include <unistd.h>

void threads_wait_gently(char **argv) {
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT")) return;
    if (setenv("GOMP_SPINCOUNT", "2000", 1)) return;        /* some 50 microseconds */
    execv("/proc/self/exe", argv);
}
