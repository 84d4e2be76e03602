/* How `shim.c` writes a record, under which lock, and of which files. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NAME_SIZE 4096
#define HIGH_FD 700 /* nobody closes by chance what is up here */

enum kind { CREATE = 1, WRITE, RESIZE, UNLINK, RENAME, LINK, FOLDER, SYNC, SYNCED, STRANGE };

struct head {
    uint32_t size; /* of the whole record: this head, two names, data */
    uint32_t kind;
    uint64_t at_ns;  /* CLOCK_MONOTONIC */
    uint64_t inode;  /* of the file or folder, where there is one */
    uint64_t number; /* offset of a write, new size, or which sync it is */
    uint32_t name_size;
    uint32_t other_size;
};

static const char *root, *swallowed;
static size_t root_size;
static int log_fd = -1, lock_fd = -1;
static uint32_t syncs; /* counted under the lock */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name)                                                                                 \
    static __typeof__(&name) real;                                                                 \
    if (real == NULL)                                                                              \
    real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int ends_with(const char *name, const char *end) {
    size_t size = strlen(name), end_size = strlen(end);
    return size >= end_size && strcmp(name + size - end_size, end) == 0;
}

__attribute__((constructor)) static void begin(void) {
    const char *log = getenv("POWER_LOG");
    root = getenv("POWER_ROOT");
    swallowed = getenv("POWER_SWALLOW");
    if (root == NULL || log == NULL)
        abort();
    root_size = strlen(root);
    for (int *fd = &log_fd;; fd = &lock_fd) { /* two descriptions: one to append, one to lock */
        int low = open(log, O_WRONLY | O_APPEND | O_CLOEXEC);
        *fd = fcntl(low, F_DUPFD_CLOEXEC, HIGH_FD);
        if (*fd < 0)
            abort();
        close(low);
        if (fd == &lock_fd)
            return;
    }
}

static void lock(void) {
    pthread_mutex_lock(&mutex); /* the threads of a process share the lock of the file */
    while (flock(lock_fd, LOCK_EX) != 0)
        if (errno != EINTR)
            abort();
}

static void unlock(void) {
    int saved = errno;
    flock(lock_fd, LOCK_UN);
    pthread_mutex_unlock(&mutex);
    errno = saved;
}

/* -- what is recorded ------------------------------------------------------------------------- */

static void append(struct head head, const char *name, const char *other, const struct iovec *data,
                   int count) {
    REAL(writev);
    struct iovec parts[3 + 64];
    struct timespec now;
    int saved = errno;
    clock_gettime(CLOCK_MONOTONIC, &now);
    head.at_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    head.name_size = (uint32_t)strlen(name);
    head.other_size = (uint32_t)strlen(other);
    head.size = (uint32_t)sizeof head + head.name_size + head.other_size;
    parts[0] = (struct iovec){&head, sizeof head};
    parts[1] = (struct iovec){(void *)name, head.name_size};
    parts[2] = (struct iovec){(void *)other, head.other_size};
    if (count > 64)
        abort();
    for (int i = 0; i < count; i++) {
        parts[3 + i] = data[i];
        head.size += (uint32_t)data[i].iov_len;
    }
    if (real(log_fd, parts, 3 + count) != (ssize_t)head.size)
        abort();
    errno = saved;
}

static void note(enum kind kind, uint64_t inode, uint64_t number, const char *name,
                 const char *other) {
    append((struct head){.kind = kind, .inode = inode, .number = number}, name, other, NULL, 0);
}

/* -- which files ------------------------------------------------------------------------------ */

static int is_below(const char *name) {
    return root != NULL && strncmp(name, root, root_size) == 0 &&
           (name[root_size] == '/' || name[root_size] == 0) && !ends_with(name, "-shm");
}

/* Whether an open file is recorded; fills in its name and its status. */
static int is_file(int fd, char *name, struct stat *status) {
    char link[64];
    int saved = errno;
    ssize_t size = -1;
    if (fd > 2 && fd < HIGH_FD && fstat(fd, status) == 0 &&
        (S_ISREG(status->st_mode) || S_ISDIR(status->st_mode))) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        size = readlink(link, name, NAME_SIZE - 1);
    }
    errno = saved;
    if (size < 0)
        return 0;
    name[size] = 0;
    return is_below(name);
}

/* Whether a name is recorded; `whole` becomes its absolute form. */
static int is_name(int folder, const char *name, char *whole) {
    char link[64], at[NAME_SIZE];
    ssize_t size;
    if (name == NULL || root == NULL)
        return 0;
    if (name[0] == '/') {
        snprintf(whole, NAME_SIZE, "%s", name);
        return is_below(whole);
    }
    if (folder == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    size = readlink(link, at, sizeof at - 1);
    if (size < 0)
        return 0;
    at[size] = 0;
    if ((size_t)snprintf(whole, NAME_SIZE, "%s/%s", at, name) >= NAME_SIZE)
        abort();
    return is_below(whole);
}

static uint64_t inode_of(const char *name) {
    struct stat status;
    return lstat(name, &status) == 0 ? status.st_ino : 0;
}
