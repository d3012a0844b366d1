/* A disk that fails when it is told to, and that remembers in which order it was written.
 *
 * Preloaded, it stands between a process and the files of one folder. What it does is told by a page
 * of memory that the process shares with whoever tests it: the file that DISK_CONTROL names, laid out
 * as `struct control` below and written by tests/faults/disk.py.
 *
 * - Faults: the nth call of the chosen kinds on the chosen files fails with an error, once or from then
 *   on. A write may first write half, as a disk does when it becomes full.
 * - Record: each call that changes the disk, or makes it keep what was changed, goes into the file that
 *   DISK_RECORD names, in the order in which they happened: one lock is held over call and record.
 *
 * SQLite and CPython call the functions below by these names; both with and without 64.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { OPEN = 1, READ = 2, WRITE = 4, TRUNCATE = 8, SYNC = 16, UNLINK = 32, ACCESS = 64, MARK = 128, CREATE = 256, LINK = 512, RENAME = 1024 };
enum { MAIN = 1, WAL = 2, SHM = 4, JOURNAL = 8, GATE = 16, FOLDER = 32 };

struct control {
    uint32_t calls;      /* which kinds of calls may fail; 0 for none */
    uint32_t files;      /* of which kinds of files */
    int64_t nth;         /* the first one to fail, counted from 1 */
    int64_t seen;        /* how many fitted so far */
    int64_t failed;      /* how many were made to fail */
    int32_t error;       /* with which error */
    uint32_t lasting;    /* all later ones fail as well */
    uint32_t half;       /* the first write to fail writes half of its bytes */
    uint32_t recording;
    char folder[1024];   /* whose files; a canonical path */
};

struct entry {           /* what precedes the data of each call in the record */
    uint32_t call;
    uint32_t file;       /* a number for each opened name; of MARK, nothing */
    int64_t offset;      /* of a truncation, the new length; of an open, 1: it made the file */
    int64_t length;      /* bytes that follow; of a link or renaming, the old name */
    int64_t failed;      /* the error of a call that failed */
};

#define MOST 4096
static struct control *control;
static int record = -1;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static char *names[MOST];   /* by descriptor; NULL for files of others */

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("DISK_CONTROL"), *log = getenv("DISK_RECORD");
    int descriptor = path ? REAL(open64)(path, O_RDWR | O_CLOEXEC) : -1;
    if (descriptor < 0)
        return;
    void *page = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    control = page == MAP_FAILED ? NULL : page;
    if (log)
        record = REAL(open64)(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

/* --- which files ------------------------------------------------------------------------------ */

static int is_ours(const char *path)
{
    size_t length;
    if (!control || !path || !(length = strlen(control->folder)))
        return 0;
    return !strncmp(path, control->folder, length) && (path[length] == '/' || !path[length]);
}

static int ends(const char *path, const char *with)
{
    size_t all = strlen(path), end = strlen(with);
    return all >= end && !strcmp(path + all - end, with);
}

static uint32_t kind(const char *path)
{
    return !strcmp(path, control->folder) ? FOLDER
        : ends(path, "-wal") ? WAL
        : ends(path, "-shm") ? SHM
        : ends(path, "-journal") ? JOURNAL
        : ends(path, "-gate") ? GATE : MAIN;
}

static const char *name_of(int descriptor)
{
    return control && descriptor >= 0 && descriptor < MOST ? names[descriptor] : NULL;
}

/* --- faults ----------------------------------------------------------------------------------- */

static int fails(uint32_t call, const char *path)
{
    if (!(control->calls & call) || !(control->files & kind(path)))
        return 0;
    int64_t now = __atomic_add_fetch(&control->seen, 1, __ATOMIC_SEQ_CST);
    if (now < control->nth || (now > control->nth && !control->lasting))
        return 0;
    __atomic_add_fetch(&control->failed, 1, __ATOMIC_SEQ_CST);
    errno = control->error;
    return 1;
}

/* --- the record: all of it with `order` held --------------------------------------------------- */

static void put(uint32_t call, const char *path, int64_t offset, const void *data, int64_t length, int64_t failed)
{
    int kept = errno;
    size_t named = path ? strlen(path) : 0;
    struct entry entry = {call, (uint32_t)named, offset, length, failed};
    char *all = malloc(sizeof entry + named + (size_t)length);
    memcpy(all, &entry, sizeof entry);
    if (named)
        memcpy(all + sizeof entry, path, named);
    if (length)
        memcpy(all + sizeof entry + named, data, (size_t)length);
    size_t left = sizeof entry + named + (size_t)length;
    for (char *at = all; left;) {
        ssize_t wrote = REAL(write)(record, at, left);
        if (wrote <= 0)
            abort();
        at += wrote;
        left -= (size_t)wrote;
    }
    free(all);
    errno = kept;
}

static int hold(void)
{
    if (!control->recording || record < 0)
        return 0;
    pthread_mutex_lock(&order);
    return 1;
}

static void let_go(int held)
{
    if (held)
        pthread_mutex_unlock(&order);
}

/* Called by the process under test itself: what it has been promised by now. */
void disk_mark(const char *text)
{
    if (!control || !hold())
        return;
    put(MARK, NULL, 0, text, (int64_t)strlen(text), 0);
    let_go(1);
}

/* --- the calls -------------------------------------------------------------------------------- */

static int opening(const char *name, int directory, const char *path, int flags, mode_t mode)
{
    __typeof__(&openat64) go = (__typeof__(&openat64))real(name);
    if (!is_ours(path))
        return go(directory, path, flags, mode);
    struct stat before;
    int held = hold(), there = !stat(path, &before);
    if ((!there && flags & O_CREAT && fails(CREATE, path))
        || ((flags & O_ACCMODE) != O_RDONLY && fails(OPEN, path))) {
        let_go(held);
        return -1;
    }
    int descriptor = go(directory, path, flags, mode);
    if (descriptor >= 0 && descriptor < MOST) {
        free(names[descriptor]);
        names[descriptor] = strdup(path);
        if (held && !there)
            put(OPEN, path, 1, NULL, 0, 0);
    }
    let_go(held);
    return descriptor;
}

#define MODE(flags, last) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list list; \
        va_start(list, last); \
        mode = va_arg(list, mode_t); \
        va_end(list); \
    }

int open(const char *path, int flags, ...) { MODE(flags, flags) return opening("openat", AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, flags) return opening("openat64", AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags, flags) return opening("openat", at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags, flags) return opening("openat64", at, path, flags, mode); }

int close(int descriptor)
{
    if (name_of(descriptor)) {
        free(names[descriptor]);
        names[descriptor] = NULL;
    }
    return REAL(close)(descriptor);
}

ssize_t pread64(int descriptor, void *data, size_t length, off64_t offset)
{
    const char *path = name_of(descriptor);
    return path && fails(READ, path) ? -1 : REAL(pread64)(descriptor, data, length, offset);
}

ssize_t pread(int descriptor, void *data, size_t length, off_t offset)
{
    return pread64(descriptor, data, length, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset)
{
    const char *path = name_of(descriptor);
    if (!path)
        return REAL(pwrite64)(descriptor, data, length, offset);
    if (fails(WRITE, path)) {
        if (!control->half || control->failed > 1 || length < 2)
            return -1;
        length /= 2;
    }
    int held = hold();
    ssize_t wrote = REAL(pwrite64)(descriptor, data, length, offset);
    if (held && wrote > 0)
        put(WRITE, path, offset, data, wrote, 0);
    let_go(held);
    return wrote;
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset)
{
    return pwrite64(descriptor, data, length, offset);
}

ssize_t write(int descriptor, const void *data, size_t length)
{
    const char *path = name_of(descriptor);
    if (!path)
        return REAL(write)(descriptor, data, length);
    off64_t offset = lseek64(descriptor, 0, SEEK_CUR);
    ssize_t wrote = pwrite64(descriptor, data, length, offset);
    if (wrote > 0)
        lseek64(descriptor, offset + wrote, SEEK_SET);
    return wrote;
}

int ftruncate64(int descriptor, off64_t length)
{
    const char *path = name_of(descriptor);
    if (!path)
        return REAL(ftruncate64)(descriptor, length);
    if (fails(TRUNCATE, path))
        return -1;
    int held = hold();
    int answer = REAL(ftruncate64)(descriptor, length);
    if (held && !answer)
        put(TRUNCATE, path, length, NULL, 0, 0);
    let_go(held);
    return answer;
}

int ftruncate(int descriptor, off_t length)
{
    return ftruncate64(descriptor, length);
}

static int syncing(const char *name, int descriptor)
{
    __typeof__(&fsync) go = (__typeof__(&fsync))real(name);
    const char *path = name_of(descriptor);
    if (!path)
        return go(descriptor);
    int held = hold();
    int failed = fails(SYNC, path);
    int answer = failed ? -1 : go(descriptor);
    if (held)
        put(SYNC, path, 0, NULL, 0, answer ? errno : 0);
    let_go(held);
    return answer;
}

int fsync(int descriptor) { return syncing("fsync", descriptor); }
int fdatasync(int descriptor) { return syncing("fdatasync", descriptor); }

int unlink(const char *path)
{
    if (!is_ours(path))
        return REAL(unlink)(path);
    if (fails(UNLINK, path))
        return -1;
    int held = hold();
    int answer = REAL(unlink)(path);
    if (held && !answer)
        put(UNLINK, path, 0, NULL, 0, 0);
    let_go(held);
    return answer;
}

static int naming(uint32_t call, const char *name, int at, const char *old, int to, const char *path, int flags)
{
    int fake = is_ours(path) && fails(call, path);
    int held = is_ours(path) ? hold() : 0;
    int answer = fake ? -1
        : call == LINK ? ((__typeof__(&linkat))real(name))(at, old, to, path, flags)
                       : ((__typeof__(&renameat))real(name))(at, old, to, path);
    if (held && !answer)
        put(call, path, 0, old, (int64_t)strlen(old), 0);
    let_go(held);
    return answer;
}

int link(const char *old, const char *path) { return naming(LINK, "linkat", AT_FDCWD, old, AT_FDCWD, path, 0); }
int rename(const char *old, const char *path) { return naming(RENAME, "renameat", AT_FDCWD, old, AT_FDCWD, path, 0); }
int linkat(int at, const char *old, int to, const char *path, int flags) { return naming(LINK, "linkat", at, old, to, path, flags); }
int renameat(int at, const char *old, int to, const char *path) { return naming(RENAME, "renameat", at, old, to, path, 0); }

int access(const char *path, int wanted)
{
    return is_ours(path) && wanted & W_OK && fails(ACCESS, path) ? -1 : REAL(access)(path, wanted);
}

int faccessat(int at, const char *path, int wanted, int flags)
{
    if (is_ours(path) && wanted & W_OK && fails(ACCESS, path))
        return -1;
    return REAL(faccessat)(at, path, wanted, flags);
}

/* A disk that is full says so when it is asked. */
int statvfs64(const char *path, struct statvfs64 *found)
{
    int answer = REAL(statvfs64)(path, found);
    if (!answer && is_ours(path) && control->calls && control->error == ENOSPC)
        found->f_bavail = 0;
    return answer;
}

int statvfs(const char *path, struct statvfs *found)
{
    int answer = REAL(statvfs)(path, found);
    if (!answer && is_ours(path) && control->calls && control->error == ENOSPC)
        found->f_bavail = 0;
    return answer;
}
