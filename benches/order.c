/* Prints the functions that a command passes through, in the order of their first use.
 *
 *   order MAP COMMAND...
 *
 * MAP is the linker's map of the command's file, which must not be one that can be anywhere in memory. The command and its
 * children go one instruction at a time (ptrace(2)), until each is another program, or the command has ended: who then
 * waits for another command is let go. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

struct function {
    unsigned long from, size;
    char *name;
    int used;
};
static struct function *functions;
static size_t count;

static void must(int good, const char *what)
{
    if (!good) {
        perror(what);
        exit(125);
    }
}

static int by_place(const void *one, const void *other)
{
    const struct function *a = one, *b = other;
    return a->from < b->from ? -1 : a->from > b->from;
}

/* A line of the map is a place twice, a size, an alignment, and a name, which is set in the farthest when it is a symbol's. */
static void read_map(const char *path)
{
    static char line[1 << 16], name[1 << 16];
    FILE *map = fopen(path, "r");
    must(map != 0, path);
    while (fgets(line, sizeof line, map)) {
        unsigned long from, size;
        int behind = 0;
        if (sscanf(line, "%lx %*x %lx %*u%n", &from, &size, &behind) < 2 || size == 0 || behind == 0)
            continue;
        if (strncmp(line + behind, "                 ", 17) != 0 || sscanf(line + behind, "%s", name) != 1)
            continue;
        if (count % 4096 == 0)
            functions = realloc(functions, (count + 4096) * sizeof *functions);
        must(functions != 0, "memory");
        functions[count++] = (struct function){ from, size, strdup(name), 0 };
    }
    fclose(map);
    qsort(functions, count, sizeof *functions, by_place);
}

static void pass(unsigned long place)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (functions[middle].from <= place)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return;
    struct function *here = &functions[low - 1];
    if (place < here->from + here->size && !here->used) {
        here->used = 1;
        puts(here->name);
    }
}

/* Lets a follower go on by itself: one that waits in the kernel is called out of that first, and goes back to it. */
static void let_go(pid_t who)
{
    int status;
    if (kill(who, SIGSTOP) != 0)
        return;
    while (waitpid(who, &status, __WALL) == who && WIFSTOPPED(status)) {
        if (status >> 16 == 0 && WSTOPSIG(status) == SIGSTOP) {
            ptrace(PTRACE_DETACH, who, 0, 0);
            return;
        }
        ptrace(PTRACE_SINGLESTEP, who, 0, 0);
    }
}

/* The processes that are followed, beside the first. */
static pid_t followers[64];

static void follow(pid_t who)
{
    pid_t *place = followers;
    while (*place != 0 && *place != who)
        place++;
    must(place < followers + 63, "too many processes");
    *place = who;
}

static void forget(pid_t who)
{
    pid_t *place = followers;
    while (*place != 0 && *place != who)
        place++;
    for (; *place != 0; place++)
        *place = place[1];
}

int main(int words, char **word)
{
    must(words > 2, "usage: order MAP COMMAND...");
    read_map(word[1]);
    pid_t first = fork();
    must(first >= 0, "fork");
    if (first == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        must(dup2(open("/dev/null", O_WRONLY), 1) == 1, "/dev/null");
        execv(word[2], word + 2);
        must(0, word[2]);
    }
    int status, began = 0;
    must(waitpid(first, &status, 0) == first, "waitpid");
    long options = PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC;
    must(ptrace(PTRACE_SETOPTIONS, first, 0, options) == 0, "ptrace");
    ptrace(PTRACE_CONT, first, 0, 0);
    for (;;) {
        pid_t who = waitpid(-1, &status, __WALL);
        if (who < 0)
            return 0;
        if (!WIFSTOPPED(status)) {
            forget(who);
            if (who != first)
                continue;
            for (pid_t *place = followers; *place != 0; place++)
                let_go(*place);
            return 0;
        }
        if (who != first)
            follow(who);
        int event = status >> 16, number = WSTOPSIG(status), passed_on = 0;
        struct user_regs_struct registers;
        if (event == PTRACE_EVENT_EXEC && began) {
            ptrace(PTRACE_DETACH, who, 0, 0);
            forget(who);
            continue;
        }
        if (event == PTRACE_EVENT_EXEC)
            began = 1;
        else if (event == 0 && number == SIGTRAP && ptrace(PTRACE_GETREGS, who, 0, &registers) == 0)
            pass(registers.rip);
        else if (event == 0 && number != SIGSTOP && number != SIGTRAP)
            passed_on = number;
        ptrace(PTRACE_SINGLESTEP, who, 0, passed_on);
    }
}
