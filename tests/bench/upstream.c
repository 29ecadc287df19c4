/* An engine that costs nothing, so that what is measured is the way to it: it answers every POST at once, or streams.
 *
 *     upstream --host PATH.sock | --port NUMBER      (127.0.0.1; every other argument is left to the real llama-server)
 *
 * With --exit-ms N it takes as long to end on SIGTERM, as an engine that frees its memory does.
 * A body asks for what it wants within its first bytes: "stream":true, "x_chunks":N (of a stream), "x_interval_us":N
 * (between them; 0 is as fast as can be), "x_delay_ms":N (before the answer). GET is answered as /health would be.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MOST_BUSY = 8192, MOST_EVENTS = 256, READ_BYTES = 65536, OPTIONS_BYTES = 512, BACKLOG = 1024 };
enum { DEFAULT_CHUNKS = 200 };

#define CHUNK_BODY \
    "data: {\"id\":\"chatcmpl-abcdefghijklmnop\",\"object\":\"chat.completion.chunk\",\"created\":1795221578," \
    "\"model\":\"upstream\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}]}\n\n"
#define ANSWER_BODY \
    "{\"id\":\"chatcmpl-abcdefghijklmnop\",\"object\":\"chat.completion\",\"created\":1795221578,\"model\":\"upstream\"," \
    "\"choices\":[{\"index\":0,\"finish_reason\":\"stop\",\"message\":{\"role\":\"assistant\",\"content\":\"The quick " \
    "brown fox jumps over the lazy dog and then keeps running through the forest.\"}}]," \
    "\"usage\":{\"prompt_tokens\":22,\"completion_tokens\":18,\"total_tokens\":40}}"
#define HEALTH "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"status\":\"ok\"}"
#define STREAM_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
#define STREAM_END "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"

static char answer[1024], chunk[512]; /* with their framing, written once */
static size_t answer_bytes, chunk_bytes;

enum state { READING, DELAYED, STREAMING };

struct connection {
    int descriptor;
    enum state state;
    char *request;
    size_t request_bytes, capacity_bytes;
    char unsent[sizeof answer]; /* what the socket had no room for; nothing else is written before it */
    size_t unsent_bytes;
    bool wants_stream;
    long chunks_left;
    uint64_t due_ns, interval_ns;
    size_t place; /* in `busy`, where it is DELAYED or STREAMING */
};

static struct connection *busy[MOST_BUSY];
static size_t busy_count;
static int events;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void watch(struct connection *connection, int operation, uint32_t what) {
    struct epoll_event event = {.events = what, .data.ptr = connection};
    if (epoll_ctl(events, operation, connection->descriptor, &event))
        fail("epoll_ctl");
}

static void become(struct connection *connection, enum state state) {
    if (connection->state == READING && state != READING) {
        if (busy_count == MOST_BUSY) {
            fputs("too many requests at once\n", stderr);
            exit(1);
        }
        connection->place = busy_count;
        busy[busy_count++] = connection;
    } else if (connection->state != READING && state == READING) {
        busy[connection->place] = busy[--busy_count];
        busy[connection->place]->place = connection->place;
    }
    connection->state = state;
}

/* One write() for each piece, as engines do. Returns whether the client is still there. */
static bool send_piece(struct connection *connection, const char *piece, size_t bytes) {
    ssize_t sent = write(connection->descriptor, piece, bytes);
    if (sent < 0 && errno != EAGAIN)
        return false;
    size_t sent_bytes = sent < 0 ? 0 : (size_t)sent;
    if (sent_bytes == bytes)
        return true;
    connection->unsent_bytes = bytes - sent_bytes;
    memmove(connection->unsent, piece + sent_bytes, connection->unsent_bytes);
    watch(connection, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    return true;
}

static bool send_unsent(struct connection *connection) {
    size_t bytes = connection->unsent_bytes;
    connection->unsent_bytes = 0;
    watch(connection, EPOLL_CTL_MOD, EPOLLIN);
    return send_piece(connection, connection->unsent, bytes);
}

static long option(const char *body, const char *name, long otherwise) {
    const char *found = strstr(body, name);
    return found ? strtol(found + strlen(name), NULL, 10) : otherwise;
}

static bool begin_answer(struct connection *connection) {
    if (connection->wants_stream) {
        become(connection, STREAMING);
        connection->due_ns = now_ns();
        return send_piece(connection, STREAM_HEAD, sizeof STREAM_HEAD - 1);
    }
    become(connection, READING);
    return send_piece(connection, answer, answer_bytes);
}

static bool take_post(struct connection *connection, const char *body, size_t body_bytes) {
    char options[OPTIONS_BYTES] = "";
    memcpy(options, body, body_bytes < sizeof options ? body_bytes : sizeof options - 1);
    connection->wants_stream = strstr(options, "\"stream\":true") != NULL;
    connection->chunks_left = option(options, "\"x_chunks\":", DEFAULT_CHUNKS);
    connection->interval_ns = (uint64_t)option(options, "\"x_interval_us\":", 0) * 1000;
    long delay_ms = option(options, "\"x_delay_ms\":", 0);
    if (delay_ms == 0)
        return begin_answer(connection);
    become(connection, DELAYED);
    connection->due_ns = now_ns() + (uint64_t)delay_ms * 1000000;
    return true;
}

/* Takes the next request, if it is there as a whole and its turn has come. */
static bool take_request(struct connection *connection) {
    if (connection->state != READING || connection->unsent_bytes > 0)
        return true;
    connection->request[connection->request_bytes] = '\0';
    char *head_end = memmem(connection->request, connection->request_bytes, "\r\n\r\n", 4);
    if (head_end == NULL)
        return true;
    char *body = head_end + 4;
    *head_end = '\0'; /* so that the search below ends there */
    const char *length = strcasestr(connection->request, "\r\ncontent-length:");
    *head_end = '\r';
    size_t body_bytes = length ? strtoul(length + strlen("\r\ncontent-length:"), NULL, 10) : 0;
    size_t whole_bytes = (size_t)(body - connection->request) + body_bytes;
    if (connection->request_bytes < whole_bytes)
        return true;
    bool is_post = strncmp(connection->request, "POST ", 5) == 0;
    bool goes_on = is_post ? take_post(connection, body, body_bytes) : send_piece(connection, HEALTH, sizeof HEALTH - 1);
    connection->request_bytes -= whole_bytes;
    memmove(connection->request, connection->request + whole_bytes, connection->request_bytes);
    return goes_on;
}

static bool read_more(struct connection *connection) {
    if (connection->capacity_bytes - connection->request_bytes <= READ_BYTES) {
        connection->capacity_bytes = 2 * connection->capacity_bytes + 2 * READ_BYTES;
        connection->request = realloc(connection->request, connection->capacity_bytes);
        if (connection->request == NULL)
            fail("realloc");
    }
    ssize_t got = read(connection->descriptor, connection->request + connection->request_bytes, READ_BYTES);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    connection->request_bytes += (size_t)got;
    return take_request(connection);
}

/* The next step of an answer whose time has come. */
static bool go_on(struct connection *connection) {
    if (connection->state == DELAYED)
        return begin_answer(connection);
    connection->due_ns += connection->interval_ns;
    if (connection->chunks_left-- > 0)
        return send_piece(connection, chunk, chunk_bytes);
    become(connection, READING);
    return send_piece(connection, STREAM_END, sizeof STREAM_END - 1) && take_request(connection);
}

static void end(struct connection *connection) {
    become(connection, READING);
    close(connection->descriptor);
    free(connection->request);
    free(connection);
}

/* Everyone whose time has come takes one step, in turns. Returns how long to wait for the next, in ms; -1 for ever. */
static int serve_busy(void) {
    uint64_t now = now_ns(), next = UINT64_MAX;
    for (size_t index = busy_count; index-- > 0;) { /* from the end: `become` fills gaps from there */
        struct connection *connection = busy[index];
        if (connection->unsent_bytes > 0)
            continue; /* EPOLLOUT says when */
        if (connection->due_ns <= now && !go_on(connection)) {
            end(connection);
            continue;
        }
        if (connection->state != READING && connection->due_ns < next)
            next = connection->due_ns;
    }
    if (next == UINT64_MAX)
        return -1;
    return next <= now ? 0 : (int)((next - now + 999999) / 1000000);
}

static int listen_on(const char *path, int port) {
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    if (path)
        strncpy(local.sun_path, path, sizeof local.sun_path - 1);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, path ? (struct sockaddr *)&local : (struct sockaddr *)&tcp, path ? sizeof local : sizeof tcp))
        fail("bind");
    if (listen(listener, BACKLOG))
        fail("listen");
    return listener;
}

static void accept_all(int listener) {
    int descriptor, yes = 1;
    while ((descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes); /* a Unix socket knows of no delay */
        struct connection *connection = calloc(1, sizeof *connection);
        if (connection == NULL)
            fail("calloc");
        connection->descriptor = descriptor;
        watch(connection, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static void serve(int listener) {
    struct epoll_event listening = {.events = EPOLLIN, .data.ptr = NULL}, happened[MOST_EVENTS];
    epoll_ctl(events, EPOLL_CTL_ADD, listener, &listening);
    for (;;) {
        int count = epoll_wait(events, happened, MOST_EVENTS, serve_busy());
        for (int index = 0; index < count; index++) {
            struct connection *connection = happened[index].data.ptr;
            if (connection == NULL) {
                accept_all(listener);
                continue;
            }
            bool goes_on = !(happened[index].events & EPOLLOUT) || send_unsent(connection);
            if (goes_on && (happened[index].events & ~EPOLLOUT))
                goes_on = read_more(connection);
            if (!goes_on)
                end(connection);
        }
    }
}

static int exit_ms;

static void end_after_a_moment(int number) {
    (void)number;
    usleep((useconds_t)exit_ms * 1000);
    _exit(0);
}

int main(int argc, char **argv) {
    const char *path = NULL;
    int port = 0;
    for (int index = 1; index + 1 < argc; index++) {
        if (strcmp(argv[index], "--host") == 0)
            path = argv[index + 1];
        else if (strcmp(argv[index], "--port") == 0)
            port = atoi(argv[index + 1]);
        else if (strcmp(argv[index], "--exit-ms") == 0)
            exit_ms = atoi(argv[index + 1]);
    }
    if (exit_ms)
        signal(SIGTERM, end_after_a_moment);
    signal(SIGPIPE, SIG_IGN);
    answer_bytes = (size_t)snprintf(
        answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
        sizeof ANSWER_BODY - 1, ANSWER_BODY
    );
    chunk_bytes = (size_t)snprintf(chunk, sizeof chunk, "%zx\r\n%s\r\n", sizeof CHUNK_BODY - 1, CHUNK_BODY);
    events = epoll_create1(EPOLL_CLOEXEC);
    serve(listen_on(path, port));
}
