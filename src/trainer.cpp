// The program: parse, build, run.
#include <cstdio>

int main() {
  std::puts("usage: trainer --config FILE");
  return 2;
}
