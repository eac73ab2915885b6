/* threads.h - how OpenMP's threads wait for each other. */
#ifndef BASE_THREADS_H
#define BASE_THREADS_H

/* First thing in main(). GNU OpenMP's idle threads spin for milliseconds before they sleep, and on
 * a machine that others use too, spinning threads take the core from the ones they wait for: ten
 * times slower was measured. The spin count can only be set in the environment before the program
 * starts, so the program starts itself once more with a short one. Does nothing when the user has
 * set OMP_WAIT_POLICY or GOMP_SPINCOUNT, or when that fails. */
void threads_wait_gently(char **argv);

#endif
