/* The least that the kernel must do for a container: what a runtime takes beyond this is its own.
 *
 *   floor run ROOTFS CGROUP [DIRECTORY COUNT]   the namespaces, mounts and cgroup of the benchmark's bundle, then /bin/true
 *                                               (and COUNT bind mounts of DIRECTORY/bound-N, half of them read-only)
 *   floor asked ROOTFS CGROUP STATE             the same without COUNT, and all else that the bundle's configuration asks
 *                                               for, in as few calls as there are for it: hidden and fixed paths, devices,
 *                                               rights, a loopback that is up; and a file in STATE that says who it is
 *   floor exec PID CGROUP                       /bin/true in the namespaces of PID and in its cgroup
 *   floor size COMMAND...                       runs a command; prints the peak resident memory of its largest process in KiB
 *
 * Nothing is read or checked beforehand; but with `asked` nothing is written down, no device is made, no path is hidden, no
 * right is given up. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
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

static void loopback(void)
{
    int handle = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    must(ioctl(handle, SIOCSIFFLAGS, &up), "lo");
    close(handle);
}

static void devices(void)
{
    static const struct {
        const char *path;
        int major, minor;
    } nodes[] = {{"dev/null", 1, 3},   {"dev/zero", 1, 5},    {"dev/full", 1, 7},
                 {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0}};
    static const char *const links[][2] = {{"/proc/self/fd", "dev/fd"},
                                           {"/proc/self/fd/0", "dev/stdin"},
                                           {"/proc/self/fd/1", "dev/stdout"},
                                           {"/proc/self/fd/2", "dev/stderr"},
                                           {"pts/ptmx", "dev/ptmx"}};
    umask(0);
    for (size_t index = 0; index < sizeof nodes / sizeof *nodes; index++)
        must(mknod(nodes[index].path, S_IFCHR | 0666, makedev(nodes[index].major, nodes[index].minor)), "mknod");
    for (size_t index = 0; index < sizeof links / sizeof *links; index++)
        must(symlink(links[index][0], links[index][1]), "symlink");
    umask(022);
}

/* Directories that are hidden share one file system. */
static void hide(void)
{
    static const char *const paths[] = {"/proc/acpi",       "/proc/asound",     "/proc/kcore",       "/proc/keys",
                                        "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
                                        "/sys/firmware",    "/proc/scsi"};
    const char *empty = 0;
    for (size_t index = 0; index < sizeof paths / sizeof *paths; index++) {
        struct stat found;
        if (stat(paths[index], &found) < 0)
            continue;
        if (!S_ISDIR(found.st_mode))
            must(mount("/dev/null", paths[index], 0, MS_BIND, 0), paths[index]);
        else if (empty)
            must(mount(empty, paths[index], 0, MS_BIND, 0), paths[index]);
        else
            put("tmpfs", empty = paths[index], MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "nr_blocks=1,nr_inodes=1");
    }
}

static void fix(void)
{
    static const char *const paths[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
    must(mount(0, "/", 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0), "/");
    for (size_t index = 0; index < sizeof paths / sizeof *paths; index++) {
        if (mount(paths[index], paths[index], 0, MS_BIND | MS_REC, 0) < 0 && errno == ENOENT)
            continue;
        must(mount(0, paths[index], 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0), paths[index]);
    }
}

static void give_up(void)
{
    unsigned kept = 1 << CAP_AUDIT_WRITE | 1 << CAP_KILL | 1 << CAP_NET_BIND_SERVICE;
    struct rlimit files = {1024, 1024};
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{kept, kept, 0}, {0, 0, 0}};
    must(setrlimit(RLIMIT_NOFILE, &files), "setrlimit");
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    for (int right = 0; (right < 32 && kept >> right & 1) || prctl(PR_CAPBSET_DROP, right, 0, 0, 0) == 0; right++)
        ;
    must(setgroups(0, 0), "setgroups");
    must(setresgid(0, 0, 0) | setresuid(0, 0, 0), "identity");
    must(syscall(SYS_capset, &header, data), "capset");
    must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient");
    must(syscall(SYS_close_range, 3, ~0U, 0), "close_range");
}

static void enter(const char *rootfs, const char *directory, int count, int asked)
{
    unsigned long hidden = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    must(unshare(CLONE_NEWCGROUP), "unshare");
    if (asked) {
        must(setsid(), "setsid");
        must(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "_ses.floor"), "keyctl");
        loopback();
    }
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
    if (asked)
        devices();
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "umount2");
    if (asked) {
        must(chdir("/"), "/");
        hide();
        fix();
        must(sethostname("floor", 5), "sethostname");
        give_up();
    }
    become();
}

/* Who it is, for other commands to find. */
static void note(const char *state, pid_t pid)
{
    char path[4096], text[512];
    must(mkdir(state, 0700), state);
    snprintf(path, sizeof path, "%s/state", state);
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    must(file, path);
    must(write(file, text, snprintf(text, sizeof text, "%0400d", pid)), path);
    close(file);
}

static void forget(const char *state)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/state", state);
    must(unlink(path), path);
    must(rmdir(state), state);
}

static int run(int count, char **words, int asked)
{
    int pidfd;
    char cgroup[256];
    snprintf(cgroup, sizeof cgroup, "/sys/fs/cgroup/%s", words[1]);
    must(mkdir(cgroup, 0755), cgroup);
    pid_t pid = born(cgroup, SPACES, &pidfd);
    if (pid == 0)
        enter(words[0], count > 2 ? words[2] : "", count > 3 ? atoi(words[3]) : 0, asked);
    if (asked)
        note(words[2], pid);
    int status = ended(pidfd);
    must(rmdir(cgroup), cgroup);
    if (asked)
        forget(words[2]);
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
        return run(count - 2, words + 2, 0);
    if (count == 5 && strcmp(words[1], "asked") == 0)
        return run(count - 2, words + 2, 1);
    if (count == 4 && strcmp(words[1], "exec") == 0)
        return join(words + 2);
    if (count > 2 && strcmp(words[1], "size") == 0)
        return size(words + 2);
    fputs("usage: floor run ROOTFS CGROUP [DIRECTORY COUNT] | asked ROOTFS CGROUP STATE | exec PID CGROUP | size COMMAND...\n", stderr);
    return 125;
}
