/* Records what a process does to the files below a folder, in the order in which it is done.
 *
 *     LD_PRELOAD=shim.so POWER_ROOT=/home/of/hal0 POWER_LOG=/else/where/log hal0 api
 *
 * Each change of a file or of a name is made and recorded under one lock of all processes, so the
 * order of the log is the order of the changes. A sync is recorded before it begins and after it
 * has ended: what lies before the first record is on the disk when the second one is written. The
 * log has the form of tests/power/recorder.py. SQLite's -shm is left out, for it is made anew after
 * every crash, and so are descriptors 0 to 2, the log of the process itself.
 *
 * POWER_SWALLOW=.part makes syncs of files whose names end so do nothing, as a bad disk does.
 *
 * Some calls that change files are recorded as what nobody can rebuild, for hal0 makes none of them.
 * One that is not known here makes the whole log rebuild something else than the files that are
 * there; a test compares the two.
 */
#include "shim_log.h"

/* -- open ------------------------------------------------------------------------------------- */

static int open_any(int folder, const char *path, int flags, mode_t mode) {
    static int (*real)(int, const char *, int, ...);
    char name[NAME_SIZE];
    struct stat status;
    if (real == NULL)
        real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat");
    if (!(flags & (O_CREAT | O_TRUNC)) || !is_name(folder, path, name))
        return real(folder, path, flags, mode);
    lock();
    int was_there = stat(name, &status) == 0;
    int fd = real(folder, path, flags, mode);
    if (fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
        if (!was_there)
            note(CREATE, status.st_ino, 0, name, "");
        else if (flags & O_TRUNC)
            note(RESIZE, status.st_ino, 0, name, "");
    }
    unlock();
    return fd;
}

#define MODE_OF(flags)                                                                             \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                         \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode = va_arg(rest, mode_t);                                                               \
        va_end(rest);                                                                              \
    }

int open(const char *path, int flags, ...) {
    MODE_OF(flags)
    return open_any(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE_OF(flags)
    return open_any(AT_FDCWD, path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    MODE_OF(flags)
    return open_any(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    MODE_OF(flags)
    return open_any(folder, path, flags, mode);
}
int creat(const char *path, mode_t mode) {
    return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

/* -- bytes ------------------------------------------------------------------------------------ */

static uint64_t place_of(int fd, const struct stat *status) {
    if (fcntl(fd, F_GETFL) & O_APPEND)
        return (uint64_t)status->st_size;
    return (uint64_t)lseek(fd, 0, SEEK_CUR);
}

/* Records what came of a write: of `count` parts the first `size` bytes. */
static void wrote(const struct stat *status, uint64_t offset, const char *name,
                  const struct iovec *data, int count, ssize_t size) {
    struct iovec parts[64];
    size_t left = size < 0 ? 0 : (size_t)size;
    int used = 0;
    for (; left > 0 && used < count && used < 64; used++) {
        parts[used] = data[used];
        if (parts[used].iov_len > left)
            parts[used].iov_len = left;
        left -= parts[used].iov_len;
    }
    if (left > 0)
        abort();
    if (size > 0)
        append((struct head){.kind = WRITE, .inode = status->st_ino, .number = offset}, name, "",
               parts, used);
}

/* `offset` is an expression, for a plain write's is known only under the lock. */
#define WRITE_OF(fd, offset, data, count, call)                                                    \
    char name[NAME_SIZE];                                                                          \
    struct stat status;                                                                            \
    if (!is_file(fd, name, &status))                                                               \
        return call;                                                                               \
    lock();                                                                                        \
    fstat(fd, &status);                                                                            \
    uint64_t at = offset;                                                                          \
    ssize_t size = call;                                                                           \
    wrote(&status, at, name, data, count, size);                                                   \
    unlock();                                                                                      \
    return size

ssize_t write(int fd, const void *data, size_t length) {
    REAL(write);
    struct iovec part = {(void *)data, length};
    WRITE_OF(fd, place_of(fd, &status), &part, 1, real(fd, data, length));
}
ssize_t writev(int fd, const struct iovec *data, int count) {
    REAL(writev);
    WRITE_OF(fd, place_of(fd, &status), data, count, real(fd, data, count));
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    REAL(pwrite);
    struct iovec part = {(void *)data, length};
    WRITE_OF(fd, (uint64_t)offset, &part, 1, real(fd, data, length, offset));
}
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    return pwrite(fd, data, length, offset);
}
ssize_t pwritev(int fd, const struct iovec *data, int count, off_t offset) {
    REAL(pwritev);
    WRITE_OF(fd, (uint64_t)offset, data, count, real(fd, data, count, offset));
}
ssize_t pwritev64(int fd, const struct iovec *data, int count, off64_t offset) {
    return pwritev(fd, data, count, offset);
}

int ftruncate(int fd, off_t length) {
    REAL(ftruncate);
    char name[NAME_SIZE];
    struct stat status;
    if (!is_file(fd, name, &status))
        return real(fd, length);
    lock();
    int result = real(fd, length);
    if (result == 0)
        note(RESIZE, status.st_ino, (uint64_t)length, name, "");
    unlock();
    return result;
}
int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

/* -- names ------------------------------------------------------------------------------------ */

#define NAMED(folder, path, call, after)                                                           \
    char name[NAME_SIZE];                                                                          \
    if (!is_name(folder, path, name))                                                              \
        return call;                                                                               \
    lock();                                                                                        \
    int result = call;                                                                             \
    if (result == 0)                                                                               \
        after;                                                                                     \
    unlock();                                                                                      \
    return result

int unlink(const char *path) {
    REAL(unlink);
    NAMED(AT_FDCWD, path, real(path), note(UNLINK, 0, 0, name, ""));
}
int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat);
    NAMED(folder, path, real(folder, path, flags), note(UNLINK, 0, 0, name, ""));
}
int rmdir(const char *path) {
    REAL(rmdir);
    NAMED(AT_FDCWD, path, real(path), note(UNLINK, 0, 0, name, ""));
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    NAMED(AT_FDCWD, path, real(path, mode), note(FOLDER, inode_of(name), 0, name, ""));
}
int mkdirat(int folder, const char *path, mode_t mode) {
    REAL(mkdirat);
    NAMED(folder, path, real(folder, path, mode), note(FOLDER, inode_of(name), 0, name, ""));
}

/* A rename of one of two links of a file to the other does nothing at all. */
static void renamed(const char *name, const char *other) {
    if (inode_of(name) == 0)
        note(RENAME, inode_of(other), 0, name, other);
}

#define NAMED_TWICE(folder, path, to_folder, to_path, call, after)                                 \
    char name[NAME_SIZE], other[NAME_SIZE];                                                        \
    int from_here = is_name(folder, path, name), to_here = is_name(to_folder, to_path, other);     \
    if (!from_here && !to_here)                                                                    \
        return call;                                                                               \
    lock();                                                                                        \
    int result = call;                                                                             \
    if (result == 0)                                                                               \
        after;                                                                                     \
    unlock();                                                                                      \
    return result

int rename(const char *path, const char *to) {
    REAL(rename);
    NAMED_TWICE(AT_FDCWD, path, AT_FDCWD, to, real(path, to), renamed(name, other));
}
int renameat(int folder, const char *path, int to_folder, const char *to) {
    REAL(renameat);
    NAMED_TWICE(folder, path, to_folder, to, real(folder, path, to_folder, to),
                renamed(name, other));
}
int link(const char *path, const char *to) {
    REAL(link);
    NAMED_TWICE(AT_FDCWD, path, AT_FDCWD, to, real(path, to),
                note(LINK, inode_of(other), 0, name, other));
}
int linkat(int folder, const char *path, int to_folder, const char *to, int flags) {
    REAL(linkat);
    NAMED_TWICE(folder, path, to_folder, to, real(folder, path, to_folder, to, flags),
                note(LINK, inode_of(other), 0, name, other));
}

/* -- syncs ------------------------------------------------------------------------------------ */

#define SYNC_OF(fd, call)                                                                          \
    char name[NAME_SIZE];                                                                          \
    struct stat status;                                                                            \
    if (!is_file(fd, name, &status))                                                               \
        return call;                                                                               \
    if (swallowed != NULL && ends_with(name, swallowed))                                           \
        return 0;                                                                                  \
    lock();                                                                                        \
    uint64_t number = (uint64_t)getpid() << 32 | ++syncs;                                          \
    note(SYNC, status.st_ino, number, name, "");                                                   \
    unlock();                                                                                      \
    int result = call;                                                                             \
    lock();                                                                                        \
    if (result == 0)                                                                               \
        note(SYNCED, status.st_ino, number, name, "");                                             \
    unlock();                                                                                      \
    return result

int fsync(int fd) {
    REAL(fsync);
    SYNC_OF(fd, real(fd));
}
int fdatasync(int fd) {
    REAL(fdatasync);
    SYNC_OF(fd, real(fd));
}

/* -- what cannot be rebuilt ------------------------------------------------------------------- */

static void strange(const char *call, int fd) {
    char name[NAME_SIZE];
    struct stat status;
    if (!is_file(fd, name, &status))
        return;
    lock();
    note(STRANGE, status.st_ino, 0, name, call);
    unlock();
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    REAL(mmap);
    if ((protection & PROT_WRITE) && (flags & MAP_SHARED) && !(flags & MAP_ANONYMOUS))
        strange("mmap", fd);
    return real(address, length, protection, flags, fd, offset);
}
void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset) {
    return mmap(address, length, protection, flags, fd, offset);
}
int posix_fallocate64(int fd, off64_t offset, off64_t length) {
    REAL(posix_fallocate64);
    strange("posix_fallocate", fd);
    return real(fd, offset, length);
}
int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    REAL(fallocate64);
    strange("fallocate", fd);
    return real(fd, mode, offset, length);
}
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t length,
                        unsigned flags) {
    REAL(copy_file_range);
    strange("copy_file_range", to);
    return real(from, from_at, to, to_at, length, flags);
}
ssize_t sendfile64(int to, int from, off64_t *offset, size_t length) {
    REAL(sendfile64);
    strange("sendfile", to);
    return real(to, from, offset, length);
}
