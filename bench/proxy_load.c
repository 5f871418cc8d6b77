/* Load for a forward proxy: a server, and a client that opens tunnels through a proxy (or a plain TCP relay) to it.
 *
 *   proxy_load serve ADDRESS PORT
 *       'x' is echoed and the connection closed; 'b' is answered with bytes without end; anything else is held.
 *   proxy_load connections|bulk|hold PROXY-PORT ADDRESS PORT CONNECT(1|0) CONCURRENCY SECONDS
 *       connections: open, exchange one byte, close, as often as possible; prints how many, and how long each took.
 *       bulk: CONCURRENCY tunnels that receive; prints the bytes.
 *       hold: opens CONCURRENCY idle tunnels, prints, and keeps them for SECONDS.
 * The server closes first, so no client port is ever left in TIME_WAIT.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum state { CONNECTING, ANSWER, RUNNING };
enum mode { CONNECTIONS, BULK, HOLD };
struct tunnel { int fd; enum state state; double started; };

static char buffer[1 << 18];
static int epoll_fd, with_connect, proxy_port;
static enum mode mode;
static char request[256];
static unsigned long done, failed, ready, bytes;
static float *latencies;
static const unsigned long latencies_max = 4 << 20;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static struct sockaddr_in address_of(const char *text, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, text, &a.sin_addr) != 1) exit(2);
    return a;
}

static void watch(int op, int fd, unsigned events, void *what) {
    struct epoll_event e = {.events = events, .data.ptr = what};
    epoll_ctl(epoll_fd, op, fd, &e);
}

static void serve(const char *host, int port) {
    struct sockaddr_in a = address_of(host, port);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct epoll_event events[256];
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(listener, (void *)&a, sizeof a) || listen(listener, 4096)) { perror("listen"); exit(1); }
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, (void *)(long)listener);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = (int)(long)events[i].data.ptr;
            if (fd == listener) {
                int c;
                while ((c = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0)
                    watch(EPOLL_CTL_ADD, c, EPOLLIN, (void *)(long)c);
                continue;
            }
            if (events[i].events & EPOLLOUT) {
                if (send(fd, buffer, sizeof buffer, MSG_NOSIGNAL) < 0 && errno != EAGAIN) close(fd);
                continue;
            }
            ssize_t got = recv(fd, buffer, 1, 0);
            if (got == 1 && buffer[0] == 'b') { watch(EPOLL_CTL_MOD, fd, EPOLLOUT, (void *)(long)fd); continue; }
            if (got == 1 && buffer[0] == 'x') send(fd, "x", 1, MSG_NOSIGNAL);
            if (got >= 0 || errno != EAGAIN) close(fd);
        }
    }
}

static void start(struct tunnel *t) {
    struct sockaddr_in source = address_of("127.0.0.5", 0), proxy = address_of("127.0.0.1", proxy_port);
    int one = 1;
    t->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    t->state = CONNECTING;
    t->started = now();
    setsockopt(t->fd, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &one, sizeof one);
    setsockopt(t->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    bind(t->fd, (void *)&source, sizeof source);
    if (connect(t->fd, (void *)&proxy, sizeof proxy) && errno != EINPROGRESS) { perror("connect"); exit(1); }
    watch(EPOLL_CTL_ADD, t->fd, EPOLLIN | EPOLLOUT | EPOLLET, t);
}

static void end(struct tunnel *t, int good) {
    if (good && done < latencies_max) latencies[done] = (float)(now() - t->started);
    good ? done++ : failed++;
    close(t->fd);
    if (mode == CONNECTIONS) start(t);
}

static void run_tunnel(struct tunnel *t) {
    t->state = RUNNING;
    ready++;
    if (mode != HOLD) send(t->fd, mode == BULK ? "b" : "x", 1, MSG_NOSIGNAL);
}

static void on_event(struct tunnel *t, unsigned events) {
    if (t->state == CONNECTING && events & EPOLLOUT) {
        if (events & EPOLLERR) { end(t, 0); return; }
        if (!with_connect) run_tunnel(t);
        else { send(t->fd, request, strlen(request), MSG_NOSIGNAL); t->state = ANSWER; }
    }
    if (t->state == ANSWER && events & EPOLLIN) {
        ssize_t got = recv(t->fd, buffer, sizeof buffer, 0);
        if (got < 0 && errno == EAGAIN) return;
        if (got < 16 || memcmp(buffer + 9, "200", 3) || memcmp(buffer + got - 4, "\r\n\r\n", 4)) { end(t, 0); return; }
        run_tunnel(t);
    }
    while (t->state == RUNNING && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        ssize_t got = recv(t->fd, buffer, 1 << 20, MSG_TRUNC);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) { end(t, got == 0 && mode == CONNECTIONS); return; }
        bytes += got;
    }
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    struct rlimit limit;
    struct epoll_event events[256];
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    epoll_fd = epoll_create1(0);
    if (argc == 4 && !strcmp(argv[1], "serve")) serve(argv[2], atoi(argv[3]));
    if (argc != 8) return 2;
    mode = !strcmp(argv[1], "bulk") ? BULK : !strcmp(argv[1], "hold") ? HOLD : CONNECTIONS;
    proxy_port = atoi(argv[2]);
    snprintf(request, sizeof request, "CONNECT %s:%s HTTP/1.1\r\nHost: %s:%s\r\nUser-Agent: load\r\n\r\n", argv[3],
             argv[4], argv[3], argv[4]);
    with_connect = atoi(argv[5]);
    unsigned long count = strtoul(argv[6], 0, 10), opened = 0;
    double seconds = atof(argv[7]), begin = now(), until = begin + seconds;
    struct tunnel *tunnels = calloc(count, sizeof *tunnels);
    latencies = malloc(latencies_max * sizeof *latencies);
    while (now() < until) {
        while (opened < count && (mode != HOLD || opened - ready - failed < 64)) start(&tunnels[opened++]);
        int n = epoll_wait(epoll_fd, events, 256, 10);
        for (int i = 0; i < n; i++) on_event(events[i].data.ptr, events[i].events);
        if (mode == HOLD && ready + failed == count && seconds > 0) {
            printf("{\"ready\": %lu, \"failed\": %lu}\n", ready, failed);
            fflush(stdout);
            until = now() + seconds;
            seconds = 0;
        }
    }
    if (mode == HOLD) return 0;
    qsort(latencies, done, sizeof *latencies, ascending);
    printf("{\"done\": %lu, \"failed\": %lu, \"bytes\": %lu, \"seconds\": %.3f, \"p50\": %.6f, \"p99\": %.6f}\n", done,
           failed, bytes, now() - begin, done ? latencies[done / 2] : 0, done ? latencies[done * 99 / 100] : 0);
    return 0;
}
