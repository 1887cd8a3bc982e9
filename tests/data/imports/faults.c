#include <sys/mman.h>
#include <string.h>
int main(void) {
  char *a = mmap(0, 8 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  madvise(a, 8 << 20, MADV_NOHUGEPAGE);
  for (int i = 0; i < 96; i++) a[i * 4096 * 7 % (2 << 20)] = 1;
  volatile char s = 0;
  for (int i = 0; i < 40; i++) s += a[(4 << 20) + i * 4096];
  madvise(a, 1 << 18, MADV_DONTNEED);
  for (int i = 0; i < 16; i++) a[i * 8192] = 2;
  return 0;
}
