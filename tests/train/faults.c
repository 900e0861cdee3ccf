/* Preloaded into a process, makes the FAULT_AT-th change below the folder FAULT_DIR fail: FAULT is "kill", or the number
   of an error. A full disk (ENOSPC) stays full; other errors happen once. With FAULT_LOG, each change is a byte in that
   file. A killed write has written half. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_long changes;

static int below(const char *path) {
    const char *folder = getenv("FAULT_DIR");
    return folder && !strncmp(path, folder, strlen(folder));
}

static int open_below(int descriptor) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return below(path);
}

static int placed_below(int folder, const char *path) {
    return path[0] == '/' || folder == AT_FDCWD ? below(path) : open_below(folder);
}

/* Counts a change: 0, or the error that it gets. `grows`: it needs space. */
static int fault(int grows) {
    long at = atoi(getenv("FAULT_AT") ? getenv("FAULT_AT") : "0"), now = atomic_fetch_add(&changes, 1) + 1;
    const char *log = getenv("FAULT_LOG"), *kind = getenv("FAULT");
    if (log) {
        int (*really)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
        ssize_t (*put)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
        int file = really(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (put(file, ".", 1) != 1) abort();
        close(file);
    }
    if (!at || now < at) return 0;
    if (!strcmp(kind, "kill")) return -1;
    if (atoi(kind) == ENOSPC) return grows ? ENOSPC : 0;
    return now == at ? atoi(kind) : 0;
}

#define REAL(type, name, ...) type (*real)(__VA_ARGS__) = dlsym(RTLD_NEXT, name)
#define FAIL(condition, grows, call)                         \
    if (condition) {                                         \
        int wrong = fault(grows);                            \
        if (wrong < 0) { call; kill(getpid(), SIGKILL); }    \
        if (wrong > 0) { errno = wrong; return -1; }         \
    }

#define CHANGES(flags) ((flags) & (O_WRONLY | O_RDWR))

static int mode_of(int flags, va_list more) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, int) : 0; }

#define OPEN(name)                                                             \
    int name(const char *path, int flags, ...) {                               \
        va_list more;                                                          \
        va_start(more, flags);                                                 \
        int mode = mode_of(flags, more);                                       \
        va_end(more);                                                          \
        REAL(int, #name, const char *, int, ...);                              \
        FAIL(CHANGES(flags) && below(path), flags &O_CREAT, (void)0)           \
        return real(path, flags, mode);                                        \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                           \
    int name(int folder, const char *path, int flags, ...) {                   \
        va_list more;                                                          \
        va_start(more, flags);                                                 \
        int mode = mode_of(flags, more);                                       \
        va_end(more);                                                          \
        REAL(int, #name, int, const char *, int, ...);                         \
        FAIL(CHANGES(flags) && placed_below(folder, path), flags &O_CREAT, (void)0) \
        return real(folder, path, flags, mode);                                \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int file, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    FAIL(open_below(file), 1, if (real(file, data, size / 2) < 0) abort())
    return real(file, data, size);
}

#define PWRITE(name)                                                           \
    ssize_t name(int file, const void *data, size_t size, off_t place) {       \
        REAL(ssize_t, #name, int, const void *, size_t, off_t);                \
        FAIL(open_below(file), 1, (void)0)                                     \
        return real(file, data, size, place);                                  \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    FAIL(below(to), 0, (void)0)
    return real(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    FAIL(placed_below(b, to), 0, (void)0)
    return real(a, from, b, to);
}
int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    FAIL(below(path), 0, (void)0)
    return real(path);
}
int unlinkat(int folder, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    FAIL(placed_below(folder, path), 0, (void)0)
    return real(folder, path, flags);
}
int rmdir(const char *path) {
    REAL(int, "rmdir", const char *);
    FAIL(below(path), 0, (void)0)
    return real(path);
}
int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    FAIL(below(path), 1, (void)0)
    return real(path, mode);
}
int mkdirat(int folder, const char *path, mode_t mode) {
    REAL(int, "mkdirat", int, const char *, mode_t);
    FAIL(placed_below(folder, path), 1, (void)0)
    return real(folder, path, mode);
}
int fsync(int file) {
    REAL(int, "fsync", int);
    FAIL(open_below(file), 0, (void)0)
    return real(file);
}
int fdatasync(int file) {
    REAL(int, "fdatasync", int);
    FAIL(open_below(file), 0, (void)0)
    return real(file);
}
int ftruncate(int file, off_t size) {
    REAL(int, "ftruncate", int, off_t);
    FAIL(open_below(file), 0, (void)0)
    return real(file, size);
}
