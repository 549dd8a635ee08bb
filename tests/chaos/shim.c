/* Fails, or kills the process at, the n-th write or flush of files below one folder. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

enum { FAIL_EIO = 1, FAIL_ENOSPC = 2, SHORT = 3, KILL_BEFORE = 4, KILL_AFTER = 5, FAIL_ON = 6 };

/* Lies in a file that the test maps too, so that it can be armed again while the service runs. */
struct control { long left, seen, kind; };
static struct control idle, *control = &idle;
static char folder[4096];

int shim_map(const char *below, const char *path) {
  int fd = open(path, O_RDWR);
  if (fd < 0) return -1;
  void *page = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (page == MAP_FAILED) return -1;
  control = page;
  strncpy(folder, below, sizeof folder - 1);
  return 0;
}

static int ours(int fd) {
  char link[64], path[4096];
  if (!folder[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  return strncmp(path, folder, strlen(folder)) == 0;
}

/* What becomes of this call: 0 as usual */
static int fate(int fd) {
  int saved = errno, what = 0;
  if (ours(fd)) {
    long n = __atomic_add_fetch(&control->seen, 1, __ATOMIC_SEQ_CST);
    if (n == control->left || (control->kind == FAIL_ON && control->left && n > control->left)) what = control->kind;
  }
  errno = saved;
  if (what == KILL_BEFORE) kill(getpid(), SIGKILL);
  return what;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define STRIKE(n, done) \
  int what = fate(fd); \
  if (what == FAIL_EIO || what == FAIL_ON) { errno = EIO; return -1; } \
  if (what == FAIL_ENOSPC) { errno = ENOSPC; return -1; } \
  __typeof__(done) result = done; \
  if (what == KILL_AFTER) kill(getpid(), SIGKILL); \
  return result

ssize_t write(int fd, const void *b, size_t n) { REAL(write); STRIKE(n, real(fd, b, what == SHORT ? n / 2 : n)); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { REAL(pwrite); STRIKE(n, real(fd, b, what == SHORT ? n / 2 : n, o)); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { REAL(pwrite64); STRIKE(n, real(fd, b, what == SHORT ? n / 2 : n, o)); }
int fsync(int fd) { REAL(fsync); STRIKE(0, real(fd)); }
int fdatasync(int fd) { REAL(fdatasync); STRIKE(0, real(fd)); }
int ftruncate(int fd, off_t n) { REAL(ftruncate); STRIKE(0, real(fd, n)); }
int ftruncate64(int fd, off64_t n) { REAL(ftruncate64); STRIKE(0, real(fd, n)); }
