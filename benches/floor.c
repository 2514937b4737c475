/* The least that the kernel must do for a container: what a runtime takes beyond this is its own.
 *
 *   floor run ROOTFS CGROUP [DIRECTORY COUNT]   the namespaces, mounts and cgroup of the benchmark's bundle, then /bin/true
 *                                               (and COUNT bind mounts of DIRECTORY/bound-N, half of them read-only)
 *   floor exec PID CGROUP                       /bin/true in the namespaces of PID and in its cgroup
 *   floor size COMMAND...                       runs a command; prints the peak resident memory of its largest process in KiB
 *
 * Nothing is checked beforehand, nothing is written down, no device is made, no path is hidden, no right is given up. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SPACES (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

static void must(int done, const char *what)
{
    if (done < 0) {
        perror(what);
        _exit(125);
    }
}

static void put(const char *kind, const char *where, unsigned long flags, const char *options)
{
    must(mount(kind, where, kind, flags, options), where);
}

/* A child in a cgroup, with namespaces of its own. */
static pid_t born(const char *cgroup, unsigned long long spaces, int *pidfd)
{
    int directory = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(directory, cgroup);
    struct clone_args args = {
        .flags = spaces | CLONE_INTO_CGROUP | CLONE_PIDFD,
        .pidfd = (unsigned long)pidfd,
        .exit_signal = SIGCHLD,
        .cgroup = directory,
    };
    long pid = syscall(SYS_clone3, &args, sizeof args);
    must(pid, "clone3");
    return pid;
}

static void become(void)
{
    execl("/bin/true", "/bin/true", (char *)0);
    must(-1, "/bin/true");
}

static int ended(int pidfd)
{
    siginfo_t how;
    must(waitid(P_PIDFD, pidfd, &how, WEXITED), "waitid");
    return how.si_status;
}

static void enter(const char *rootfs, const char *directory, int count)
{
    unsigned long hidden = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    must(unshare(CLONE_NEWCGROUP), "unshare");
    must(mount(0, "/", 0, MS_REC | MS_SLAVE, 0), "/");
    must(mount(rootfs, rootfs, 0, MS_BIND | MS_REC, 0), rootfs);
    must(chdir(rootfs), rootfs);
    put("proc", "proc", 0, 0);
    put("tmpfs", "dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    must(mkdir("dev/pts", 0755) | mkdir("dev/shm", 0755) | mkdir("dev/mqueue", 0755), "dev");
    put("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    put("tmpfs", "dev/shm", hidden, "mode=1777,size=65536k");
    put("mqueue", "dev/mqueue", hidden, 0);
    put("sysfs", "sys", hidden | MS_RDONLY, 0);
    put("cgroup2", "sys/fs/cgroup", hidden | MS_RELATIME | MS_RDONLY, 0);
    for (int index = 0; index < count; index++) {
        char from[4096], to[32];
        snprintf(from, sizeof from, "%s/bound-%d", directory, index);
        snprintf(to, sizeof to, "mnt/%d", index);
        must(mount(from, to, 0, MS_BIND | MS_REC, 0), from);
        if (index % 2 == 0)
            must(mount(0, to, 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0), to);
    }
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "umount2");
    become();
}

static int run(int count, char **words)
{
    int pidfd;
    char cgroup[256];
    snprintf(cgroup, sizeof cgroup, "/sys/fs/cgroup/%s", words[1]);
    must(mkdir(cgroup, 0755), cgroup);
    if (born(cgroup, SPACES, &pidfd) == 0)
        enter(words[0], count > 2 ? words[2] : "", count > 3 ? atoi(words[3]) : 0);
    int status = ended(pidfd);
    must(rmdir(cgroup), cgroup);
    return status;
}

static int join(char **words)
{
    int pidfd, target = syscall(SYS_pidfd_open, atoi(words[0]), 0);
    must(target, words[0]);
    must(setns(target, CLONE_NEWPID), "setns");
    if (born(words[1], 0, &pidfd) == 0) {
        must(setns(target, SPACES & ~CLONE_NEWPID), "setns");
        become();
    }
    return ended(pidfd);
}

/* The kernel counts the memory of who makes a process for that process too, so whoever measures must be small. */
static int size(char **words)
{
    int status;
    struct rusage used;
    pid_t pid = fork();
    must(pid, "fork");
    if (pid == 0) {
        int nowhere = open("/dev/null", O_RDWR);
        dup2(nowhere, 1);
        execv(words[0], words);
        must(-1, words[0]);
    }
    must(wait4(pid, &status, 0, &used), "wait4");
    printf("%ld\n", used.ru_maxrss);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}

int main(int count, char **words)
{
    if (count > 3 && strcmp(words[1], "run") == 0)
        return run(count - 2, words + 2);
    if (count == 4 && strcmp(words[1], "exec") == 0)
        return join(words + 2);
    if (count > 2 && strcmp(words[1], "size") == 0)
        return size(words + 2);
    fputs("usage: floor run ROOTFS CGROUP [DIRECTORY COUNT] | exec PID CGROUP | size COMMAND...\n", stderr);
    return 125;
}
