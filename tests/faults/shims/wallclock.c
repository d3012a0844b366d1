/* Moves the wall clock of the processes that it is preloaded into, and no other clock.
 *
 * WALLCLOCK_FILE names a file of eight bytes, a signed number of nanoseconds in the machine's byte order,
 * which is mapped: a test that writes another number moves the clock of processes that run. libfaketime
 * cannot do that for Python 3.11, whose time.sleep it breaks when it leaves the monotonic clock alone.
 *
 * Not moved: the times of files, and waits until a moment of the wall clock (sem_timedwait and its like),
 * which the kernel counts. CPython 3.11 uses neither where the C library has sem_clockwait.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static long long moved_by(void)
{
    static const volatile long long *offset;
    if (!offset) {
        const char *path = getenv("WALLCLOCK_FILE");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *map = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
        if (map == MAP_FAILED) {
            fprintf(stderr, "wallclock: WALLCLOCK_FILE=%s cannot be mapped\n", path ? path : "");
            _exit(127);
        }
        close(file);
        offset = map;
    }
    return *offset;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI)) {
        long long moved = now->tv_sec * SECOND + now->tv_nsec + moved_by();
        now->tv_sec = moved / SECOND;
        now->tv_nsec = moved % SECOND;
    }
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now)
        *now = exact.tv_sec;
    return exact.tv_sec;
}

int timespec_get(struct timespec *now, int base)
{
    return clock_gettime(CLOCK_REALTIME, now) ? 0 : base;
}
