// Makes the N-th sync of a process fail, as a failing disk does: N comes from FAIL_SYNC.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

static atomic_int count;

static int fails(void) {
    const char *wanted = getenv("FAIL_SYNC");
    return wanted && atomic_fetch_add(&count, 1) + 1 == atoi(wanted);
}

int fsync(int file) {
    static int (*real)(int);
    if (fails()) { errno = EIO; return -1; }
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return real(file);
}

int fdatasync(int file) {
    static int (*real)(int);
    if (fails()) { errno = EIO; return -1; }
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return real(file);
}
