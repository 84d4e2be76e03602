/* What a test orders to go wrong, preloaded into processes of hal0.

   Each call that can go wrong looks into the folder named by $FAULTY, so that an order takes effect,
   and ends, while the process runs:

     fault   "<number> <call> <nth> <times> <act> <part of a path>": from the nth such call of this
             process on, so many (0 = all) do not happen and act instead: fail with this errno, or,
             below zero, send this signal to the process. Another number counts anew. A call is
             `sync`, `write`, `change` (either of the two) or `send`, a datagram to a socket's path.
     clock   the seconds by which the wall clock of this process is wrong
     hits    gets a line "<pid> <call> <path>" for each call that acted                          */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

static atomic_long number, calls;

/* Straight to the kernel: what is intercepted here must not be used here. */
static int open_in_folder(const char *name, int flags)
{
    char path[PATH_MAX];
    const char *folder = getenv("FAULTY");
    if (!folder)
        return -1;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0600);
}

static int read_from_folder(const char *name, char *text, size_t size)
{
    int file = open_in_folder(name, O_RDONLY);
    long got = file < 0 ? 0 : syscall(SYS_read, file, text, size - 1);
    if (file >= 0)
        syscall(SYS_close, file);
    text[got > 0 ? got : 0] = 0;
    return got > 0;
}

static void note(const char *call, const char *path)
{
    char line[PATH_MAX + 64];
    int file = open_in_folder("hits", O_WRONLY | O_APPEND | O_CREAT);
    int size = snprintf(line, sizeof line, "%d %s %s\n", getpid(), call, path);
    if (file >= 0) {
        syscall(SYS_write, file, line, size);
        syscall(SYS_close, file);
    }
}

/* Whether this call is to act; its errno is set then, or its signal was sent. */
static int acts(const char *call, const char *path)
{
    char text[PATH_MAX + 128], wanted[16], part[PATH_MAX];
    long order, nth, times, act;
    if (!read_from_folder("fault", text, sizeof text)
        || sscanf(text, "%ld %15s %ld %ld %ld %4095s", &order, wanted, &nth, &times, &act, part) != 6)
        return 0;
    int is_change = !strcmp(wanted, "change") && strcmp(call, "send");
    if ((!is_change && strcmp(wanted, call)) || !strstr(path, part))
        return 0;
    if (atomic_exchange(&number, order) != order)
        atomic_store(&calls, 0);
    long now = atomic_fetch_add(&calls, 1) + 1;
    if (now < nth || (times && now >= nth + times))
        return 0;
    note(call, path);
    if (act < 0) {
        syscall(SYS_kill, getpid(), -act);
        return 0;
    }
    errno = act;
    return 1;
}

static int acts_on_file(const char *call, int file)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0 || path[0] != '/')
        return 0;
    path[size] = 0;
    return acts(call, path);
}

int fsync(int file) { return acts_on_file("sync", file) ? -1 : REAL(fsync)(file); }

int fdatasync(int file) { return acts_on_file("sync", file) ? -1 : REAL(fdatasync)(file); }

ssize_t write(int file, const void *bytes, size_t size)
{
    return acts_on_file("write", file) ? -1 : syscall(SYS_write, file, bytes, size);
}

ssize_t pwrite(int file, const void *bytes, size_t size, off_t offset)
{
    return acts_on_file("write", file) ? -1 : REAL(pwrite)(file, bytes, size, offset);
}

ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t offset)
{
    return acts_on_file("write", file) ? -1 : REAL(pwrite64)(file, bytes, size, offset);
}

ssize_t sendto(int socket, const void *bytes, size_t size, int flags, const struct sockaddr *to,
               socklen_t length)
{
    if (to && to->sa_family == AF_UNIX && acts("send", ((const struct sockaddr_un *)to)->sun_path))
        return -1;
    return REAL(sendto)(socket, bytes, size, flags, to, length);
}

static long wrong_by(void)
{
    char text[32];
    return read_from_folder("clock", text, sizeof text) ? atol(text) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    int failed = syscall(SYS_clock_gettime, clock, at);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        at->tv_sec += wrong_by();
    return failed;
}

int gettimeofday(struct timeval *at, void *zone)
{
    struct timespec now;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    (void)zone;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}
