// zoo            runs every case in a process of its own and prints "name <tab> outcome <tab> message"
// zoo name...    runs these
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>
#include <cstdlib>
#include "zoo.h"

namespace {

constexpr unsigned kSeconds = 60;

// In the child: standard error holds what is said about the case.
[[noreturn]] void run(const minialex::zoo::Animal& animal) {
  alarm(kSeconds);
  int status = 0;
  try {
    status = animal.run() ? 0 : 3;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    status = 4;
  }
  std::fflush(stderr);
  _exit(status);
}

void report(const minialex::zoo::Animal& animal) {
  int ends[2];
  if (pipe(ends)) std::exit(1);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    close(ends[0]);
    run(animal);
  }
  close(ends[1]);
  std::string said;
  char bytes[4096];
  for (ssize_t got; (got = read(ends[0], bytes, sizeof bytes)) > 0;) said.append(bytes, static_cast<size_t>(got));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  std::string outcome = "sanitizer";               // which ends the process with a status of its own
  if (WIFSIGNALED(status)) outcome = WTERMSIG(status) == SIGALRM ? "hangs" : "killed";
  else if (WEXITSTATUS(status) == 0) outcome = "right";
  else if (WEXITSTATUS(status) == 3) outcome = "wrong";
  else if (WEXITSTATUS(status) == 4) outcome = "error";
  std::replace(said.begin(), said.end(), '\n', ' ');
  std::replace(said.begin(), said.end(), '\t', ' ');
  std::printf("%s\t%s\t%s\n", animal.name, outcome.c_str(), said.substr(0, 3000).c_str());
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** words) {
  for (const auto& animal : minialex::zoo::animals())
    if (count < 2 || std::any_of(words + 1, words + count, [&](const char* word) { return std::string(word) == animal.name; })) report(animal);
}
