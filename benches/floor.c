/* The least that the kernel must do for a container: what a runtime takes beyond this is its own.
 *
 *   floor run ROOTFS CGROUP [DIRECTORY COUNT]   the namespaces, mounts and cgroup of the benchmark's bundle, then /bin/true
 *                                               (and COUNT bind mounts of DIRECTORY/bound-N, half of them read-only)
 *   floor asked ROOTFS CGROUP STATE             the same without COUNT, and all else that the bundle's configuration asks
 *                                               for, in as few calls as there are for it: hidden and fixed paths, devices,
 *                                               rights, a loopback that is up; and a file in STATE that says who it is
 *   floor guarded ROOTFS CGROUP STATE CONFIG    what is asked, as Bulkhead guards it: each path is looked up inside the root and
 *                                               used by its descriptor, the program's file is on a read-only mount, the
 *                                               host is asked what it has, and the program is let go when who it is
 *                                               and its configuration are on record; nothing is understood of that
 *   floor exec PID CGROUP                       /bin/true in the namespaces of PID and in its cgroup
 *   floor size COMMAND...                       runs a command; prints the peak resident memory of its largest process in KiB
 *
 * With `run` nothing is written down, no device is made, no path is hidden, no right is given up; with `asked` nothing is read
 * or checked beforehand either. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/openat2.h>
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

/* How much of a container: no more than the kernel must do, what is asked, or that guarded. */
enum { BARE, ASKED, GUARDED };

#define SPACES (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)

static void must(int done, const char *what)
{
    if (done < 0) {
        perror(what);
        _exit(125);
    }
}

/* The root as a descriptor, where no path is believed. */
static int guarded = -1;

/* Where a path leads inside the root. */
static int look(const char *path)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    return syscall(SYS_openat2, guarded, path, &how, sizeof how);
}

static void fix_mount(int made)
{
    struct mount_attr fixed = {.attr_set = MOUNT_ATTR_RDONLY};
    must(mount_setattr(made, "", AT_EMPTY_PATH, &fixed, sizeof fixed), "mount_setattr");
}

/* Gives a mount its place. */
static void attach(int made, const char *where)
{
    int found = look(where);
    must(found, where);
    must(move_mount(made, "", found, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH), where);
    close(found);
    close(made);
}

static void put(const char *kind, const char *where, unsigned long flags, const char *options)
{
    if (guarded < 0) {
        must(mount(kind, where, kind, flags, options), where);
        return;
    }
    int context = fsopen(kind, FSOPEN_CLOEXEC);
    must(context, kind);
    must(fsconfig(context, FSCONFIG_SET_STRING, "source", kind, 0), kind);
    char words[256] = "", *rest = words;
    strncat(words, options ? options : "", sizeof words - 1);
    for (char *word; (word = strsep(&rest, ",")) && *word;) {
        char *value = strchr(word, '=');
        if (value)
            *value++ = 0;
        must(fsconfig(context, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, word, value, 0), word);
    }
    must(fsconfig(context, FSCONFIG_CMD_CREATE, 0, 0, 0), kind);
    /* These have the same numbers in both calls; the others are the kernel's own choice. */
    int made = fsmount(context, FSMOUNT_CLOEXEC, flags & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC));
    must(made, kind);
    close(context);
    attach(made, where);
}

/* What is at a path, at another as well, perhaps for reading only; gives whether there is anything. */
static int also_at(const char *from, const char *to, int fixed)
{
    if (guarded < 0) {
        if (mount(from, to, 0, MS_BIND | MS_REC, 0) < 0)
            return -1;
        if (fixed)
            must(mount(0, to, 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0), to);
        return 0;
    }
    int found = look(from);
    if (found < 0)
        return -1;
    int made = open_tree(found, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
    must(made, from);
    close(found);
    if (fixed)
        fix_mount(made);
    attach(made, to);
    return 0;
}

static int kind_of(const char *path, struct stat *is)
{
    if (guarded < 0)
        return stat(path, is);
    int found = look(path);
    if (found < 0)
        return -1;
    must(fstat(found, is), path);
    close(found);
    return 0;
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
        if (kind_of(paths[index], &found) < 0)
            continue;
        if (S_ISDIR(found.st_mode) && !empty)
            put("tmpfs", empty = paths[index], MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "nr_blocks=1,nr_inodes=1");
        else
            must(also_at(S_ISDIR(found.st_mode) ? empty : "/dev/null", paths[index], 0), paths[index]);
    }
}

static void fix(void)
{
    static const char *const paths[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
    if (guarded < 0)
        must(mount(0, "/", 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0), "/");
    else
        fix_mount(guarded);
    for (size_t index = 0; index < sizeof paths / sizeof *paths; index++)
        if (also_at(paths[index], paths[index], 1) < 0)
            must(errno == ENOENT ? 0 : -1, paths[index]);
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

/* The mount that becomes the root, which is entered. */
static void stand_in(const char *rootfs, int asked)
{
    must(mount(0, "/", 0, MS_REC | MS_SLAVE, 0), "/");
    if (asked < GUARDED) {
        must(mount(rootfs, rootfs, 0, MS_BIND | MS_REC, 0), rootfs);
        must(chdir(rootfs), rootfs);
        return;
    }
    int made = open_tree(AT_FDCWD, rootfs, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    must(made, rootfs);
    must(mount(0, "/", 0, MS_PRIVATE, 0), "/");
    must(move_mount(made, "", AT_FDCWD, rootfs, MOVE_MOUNT_F_EMPTY_PATH), rootfs);
    must(fchdir(guarded = made), rootfs);
}

/* Where the program begins, and whether it is one; then it waits to be let go. */
static void wait_for_word(int channel)
{
    char word[256] = "ready";
    int place = look("/"), program = look("/bin/true");
    must(fchdir(place), "/");
    must(syscall(SYS_getcwd, word + 6, sizeof word - 6), "getcwd");
    must(faccessat(program, "", X_OK, AT_EACCESS | AT_EMPTY_PATH), "/bin/true");
    must(write(channel, word, 6), "write");
    must(read(channel, word, 1), "read");
}

static void enter(char **words, int count, int asked, int channel)
{
    const char *rootfs = words[0], *directory = count > 0 ? words[2] : "";
    unsigned long hidden = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    must(unshare(CLONE_NEWCGROUP), "unshare");
    if (asked) {
        must(setsid(), "setsid");
        must(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "_ses.floor"), "keyctl");
        loopback();
    }
    if (asked == GUARDED)
        must(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable");
    stand_in(rootfs, asked);
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
        must(also_at(from, to, index % 2 == 0), from);
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
        if (asked == GUARDED)
            wait_for_word(channel);
        give_up();
    }
    become();
}

/* Reads a file of the kernel's, or another, to its end. */
static size_t take(const char *path, char *text, size_t room)
{
    size_t size = 0;
    ssize_t more;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    must(file, path);
    while ((more = read(file, text + size, room - size)) > 0)
        size += more;
    must(more, path);
    close(file);
    return size;
}

/* Writes a file in place, or first beside it. */
static void keep(const char *state, const char *name, const char *text, size_t size, int asked)
{
    char path[4096], draft[4096];
    snprintf(path, sizeof path, "%s/%s", state, name);
    snprintf(draft, sizeof draft, "%s/.%s", state, name);
    const char *first = asked == GUARDED ? draft : path;
    int file = open(first, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    must(file, first);
    must(write(file, text, size), first);
    close(file);
    if (asked == GUARDED)
        must(rename(draft, path), path);
}

/* Who it is, for other commands to find. */
static void note(const char *state, pid_t pid, int asked)
{
    char text[512];
    keep(state, "state", text, snprintf(text, sizeof text, "%0400d", pid), asked);
}

static void forget(const char *state, int asked)
{
    static const char *const names[] = {"state", "config", "cgroup"};
    char path[4096];
    for (size_t index = 0; index < (asked == GUARDED ? sizeof names / sizeof *names : 1); index++) {
        snprintf(path, sizeof path, "%s/%s", state, names[index]);
        must(unlink(path), path);
    }
    must(rmdir(state), state);
}

/* The mount from which nobody can write to this program's file, and the file there. */
static void seal(int held[2])
{
    char path[64];
    int own = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    must(own, "/proc/self/exe");
    held[0] = open_tree(own, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    must(held[0], "open_tree");
    fix_mount(held[0]);
    snprintf(path, sizeof path, "/proc/self/fd/%d", held[0]);
    must(held[1] = open(path, O_RDONLY | O_CLOEXEC), path);
    close(own);
}

/* What has to be known and on record before anything is made. */
static size_t prepare(char **words, const char *cgroup, char *config, size_t room)
{
    static const char *const files[] = {"/proc/self/cgroup", "/sys/fs/cgroup/cgroup.controllers", "/proc/self/uid_map",
                                        "/proc/sys/kernel/random/boot_id"};
    char path[4096], text[4096];
    size_t size = take(words[3], config, room);
    for (size_t index = 0; index < sizeof files / sizeof *files; index++)
        take(files[index], text, sizeof text);
    snprintf(path, sizeof path, "%s/cgroup", words[2]);
    must(symlink(cgroup, path), path);
    note(words[2], 0, GUARDED);
    return size;
}

/* Puts on record who was born, and lets the program go: the channel closes when it runs. */
static void let_go(char **words, pid_t pid, int channel, const char *config, size_t size)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    take(path, text, sizeof text);
    keep(words[2], "config", config, size, GUARDED);
    must(read(channel, text, sizeof text) == 6 ? 0 : -1, "the word of the child");
    note(words[2], pid, GUARDED);
    must(write(channel, "", 1), "write");
    must(read(channel, text, sizeof text), "read");
    take(path, text, sizeof text);
}

static int run(int count, char **words, int asked)
{
    int pidfd, channel[2] = {-1, -1}, held[2] = {-1, -1};
    char cgroup[256], path[300], config[8192];
    size_t size = 0;
    snprintf(cgroup, sizeof cgroup, "/sys/fs/cgroup/%s", words[1]);
    if (asked)
        must(mkdir(words[2], 0700), words[2]);
    if (asked == GUARDED) {
        seal(held);
        size = prepare(words, cgroup, config, sizeof config);
        must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel), "socketpair");
    }
    must(mkdir(cgroup, 0755), cgroup);
    if (asked == GUARDED) {
        snprintf(path, sizeof path, "%s/cgroup.events", cgroup);
        char text[4096];
        take(path, text, sizeof text);
    }
    pid_t pid = born(cgroup, SPACES, &pidfd);
    if (pid == 0) {
        close(channel[0]);
        enter(words, asked ? 0 : count > 3 ? atoi(words[3]) : 0, asked, channel[1]);
    }
    if (asked == GUARDED) {
        close(channel[1]);
        let_go(words, pid, channel[0], config, size);
        close(held[0]);
        close(held[1]);
    } else if (asked)
        note(words[2], pid, asked);
    int status = ended(pidfd);
    must(rmdir(cgroup), cgroup);
    if (asked)
        forget(words[2], asked);
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
        return run(count - 2, words + 2, BARE);
    if (count == 5 && strcmp(words[1], "asked") == 0)
        return run(count - 2, words + 2, ASKED);
    if (count == 6 && strcmp(words[1], "guarded") == 0)
        return run(count - 2, words + 2, GUARDED);
    if (count == 4 && strcmp(words[1], "exec") == 0)
        return join(words + 2);
    if (count > 2 && strcmp(words[1], "size") == 0)
        return size(words + 2);
    fputs("usage: floor run ROOTFS CGROUP [DIRECTORY COUNT] | asked ROOTFS CGROUP STATE | guarded ROOTFS CGROUP STATE CONFIG | exec PID CGROUP | size COMMAND...\n", stderr);
    return 125;
}
