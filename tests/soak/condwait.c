/* Put before libfaketime: timed waits go straight to libc.
 *
 * Python hands its lock from thread to thread by them, on the monotonic clock, which is never faked. libfaketime looks
 * at its own settings under a lock of its own at each of them, and a process with thirty threads becomes ten times as
 * slow.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <time.h>

static void *of_libc(const char *name) {
  return dlvsym(dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD), name, "GLIBC_2.3.2");
}

int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until) {
  static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  if (!real) real = of_libc("pthread_cond_timedwait");
  return real(cond, mutex, until);
}

int pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attributes) {
  static int (*real)(pthread_cond_t *, const pthread_condattr_t *);
  if (!real) real = of_libc("pthread_cond_init");
  return real(cond, attributes);
}

int pthread_cond_destroy(pthread_cond_t *cond) {
  static int (*real)(pthread_cond_t *);
  if (!real) real = of_libc("pthread_cond_destroy");
  return real(cond);
}
