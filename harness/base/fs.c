/* Owns file access; must not know any file's format. */
#include "base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int kvg_fs_map(struct kvg_fs_map *m, const char *path, struct kvg_err *err)
{
    struct stat st;
    memset(m, 0, sizeof *m);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return KVG_FAIL(err, KVG_EIO, "cannot open '%s': %s", path, strerror(errno));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return KVG_FAIL(err, KVG_EIO, "not a regular file: '%s'", path);
    }
    if (st.st_size == 0) {
        close(fd);
        return KVG_FAIL(err, KVG_EFORMAT, "the file is empty: '%s'", path);
    }
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    int e = errno;
    close(fd);
    if (p == MAP_FAILED)
        return KVG_FAIL(err, KVG_EIO, "cannot map '%s': %s", path, strerror(e));
    m->data = p;
    m->size = (size_t)st.st_size;
    return 0;
}

void kvg_fs_unmap(struct kvg_fs_map *m)
{
    if (m->data)
        munmap((void *)(size_t)m->data, m->size);
    memset(m, 0, sizeof *m);
}

int kvg_fs_read(const char *path, size_t max_bytes, char **data, size_t *size, struct kvg_err *err)
{
    *data = NULL;
    *size = 0;
    FILE *f = fopen(path, "rb");
    if (!f)
        return KVG_FAIL(err, KVG_EIO, "cannot open '%s': %s", path, strerror(errno));
    size_t cap = 1 << 16, n = 0;
    char *p = malloc(cap + 1);
    while (p) {
        size_t got = fread(p + n, 1, cap - n, f);
        n += got;
        if (n < cap || n > max_bytes)
            break;
        char *q = realloc(p, cap * 2 + 1);
        if (!q)
            free(p);
        p = q;
        cap *= 2;
    }
    int bad = ferror(f), e = errno;
    fclose(f);
    if (!p)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory reading '%s'", path);
    if (bad || n > max_bytes) {
        free(p);
        return bad ? KVG_FAIL(err, KVG_EIO, "cannot read '%s': %s", path, strerror(e))
                   : KVG_FAIL(err, KVG_ELIMIT, "'%s' is larger than %zu bytes", path, max_bytes);
    }
    p[n] = 0;
    *data = p;
    *size = n;
    return 0;
}

/* Closes fd in every case. */
static int write_all(int fd, const char *path, const char *p, size_t n, struct kvg_err *err)
{
    int rc = 0;
    while (n > 0 && !rc) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0) {
            rc = KVG_FAIL(err, KVG_EIO, "cannot write '%s': %s", path, strerror(errno));
            break;
        }
        p += w;
        n -= (size_t)w;
    }
    /* Pipes and terminals (EINVAL) cannot be synced. */
    if (!rc && fsync(fd) && errno != EINVAL && errno != EROFS)
        rc = KVG_FAIL(err, KVG_EIO, "cannot write '%s': %s", path, strerror(errno));
    if (close(fd) && !rc)
        rc = KVG_FAIL(err, KVG_EIO, "cannot write '%s': %s", path, strerror(errno));
    return rc;
}

/* Renaming onto a device or a pipe would put a file in its place. */
static int is_special(const char *path)
{
    struct stat st;
    return !stat(path, &st) && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

int kvg_fs_write_atomic(const char *path, const void *data, size_t n, struct kvg_err *err)
{
    int direct = is_special(path), rc = 0;
    size_t len = strlen(path) + 16;
    char *tmp = malloc(len);
    if (!tmp)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory writing '%s'", path);
    snprintf(tmp, len, "%s%s", path, direct ? "" : ".tmp");
    int fd = open(tmp, O_WRONLY | (direct ? 0 : O_CREAT | O_TRUNC) | O_CLOEXEC, 0644);
    if (fd < 0) {
        rc = KVG_FAIL(err, KVG_EIO, "cannot write '%s': %s", tmp, strerror(errno));
        goto out;
    }
    rc = write_all(fd, path, data, n, err);
    if (!rc && !direct && rename(tmp, path))
        rc = KVG_FAIL(err, KVG_EIO, "cannot rename to '%s': %s", path, strerror(errno));
    if (rc && !direct)
        unlink(tmp);
out:
    free(tmp);
    return rc;
}

int kvg_fs_is_dir(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

int kvg_fs_exists(const char *path)
{
    struct stat st;
    return !stat(path, &st);
}

int kvg_fs_mkdirs(const char *path, struct kvg_err *err)
{
    size_t n = strlen(path);
    char *p = malloc(n + 1);
    if (!p)
        return KVG_FAIL(err, KVG_ENOMEM, "out of memory");
    memcpy(p, path, n + 1);
    int rc = 0;
    for (size_t i = 1; i <= n && !rc; i++) {
        if (p[i] != '/' && p[i] != 0)
            continue;
        char c = p[i];
        p[i] = 0;
        if (mkdir(p, 0755) && !kvg_fs_is_dir(p))
            rc = KVG_FAIL(err, KVG_EIO, "cannot create the folder '%s': %s", p, strerror(errno));
        p[i] = c;
    }
    free(p);
    return rc;
}
