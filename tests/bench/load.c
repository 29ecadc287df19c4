/* Clients that ask as fast as they are answered, each over a connection of its own; what they saw is a line of JSON.
 *
 *     load TCP_PORT|UNIX_PATH CLIENTS SECONDS BODY_FILE
 *
 * Times and rates leave out a first part, in which connections are made and caches filled; counts are of everything.
 * Chunks are the events of streams. Exit status 1 if the address is not open.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
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

enum { MOST_EVENTS = 256, HEAD_BYTES = 4096, READ_BYTES = 262144, MOST_BODY_BYTES = 1 << 20 };

static const double WARM_UP = 0.2;               /* of the time */
static const uint64_t PATIENCE_NS = 30000000000; /* for answers that are still missing in the end */

struct series {
    uint64_t *values;
    size_t count, capacity;
};

/* What comes next in an answer. */
enum part { HEAD, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, LAST_END };

struct client {
    int descriptor;
    enum part part;
    bool is_answering;
    char head[HEAD_BYTES];
    size_t head_bytes;
    size_t part_left_bytes;
    char before; /* the last byte of the body so far: two line ends make an event */
    uint64_t asked_ns;
};

static char *request;
static size_t request_bytes;
static const char *target;
static int events;
static uint64_t measured_from_ns, ends_ns;
static struct series latencies, first_bytes;
static unsigned long answers, failures, chunks, chunks_measured;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static bool is_measured(uint64_t now) {
    return now >= measured_from_ns && now < ends_ns;
}

static void add(struct series *series, uint64_t value) {
    if (series->count == series->capacity) {
        series->capacity = series->capacity ? 2 * series->capacity : 65536;
        series->values = realloc(series->values, series->capacity * sizeof *series->values);
        if (series->values == NULL)
            fail("realloc");
    }
    series->values[series->count++] = value;
}

static int by_value(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static void sort(struct series *series) {
    if (series->count > 0)
        qsort(series->values, series->count, sizeof *series->values, by_value);
}

/* Of a sorted series, in microseconds. */
static double quantile_us(const struct series *series, double part) {
    return series->count ? (double)series->values[(size_t)(part * (double)(series->count - 1) + 0.5)] / 1000 : 0;
}

static void open_connection(struct client *client) {
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(target))};
    tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bool is_local = target[0] == '/';
    strncpy(local.sun_path, target, sizeof local.sun_path - 1);
    client->descriptor = socket(is_local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(client->descriptor, is_local ? (struct sockaddr *)&local : (struct sockaddr *)&tcp,
                is_local ? sizeof local : sizeof tcp))
        fail(target);
    int yes = 1;
    setsockopt(client->descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes); /* a Unix socket knows of no delay */
    fcntl(client->descriptor, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    if (epoll_ctl(events, EPOLL_CTL_ADD, client->descriptor, &event))
        fail("epoll_ctl");
}

/* Send all of the request before reading: no server answers half of one. */
static bool ask(struct client *client) {
    client->part = HEAD;
    client->head_bytes = 0;
    client->is_answering = false;
    client->asked_ns = now_ns();
    for (size_t sent_bytes = 0; sent_bytes < request_bytes;) {
        ssize_t sent = write(client->descriptor, request + sent_bytes, request_bytes - sent_bytes);
        if (sent < 0 && errno != EAGAIN)
            return false;
        if (sent < 0)
            poll(&(struct pollfd){.fd = client->descriptor, .events = POLLOUT}, 1, -1);
        else
            sent_bytes += (size_t)sent;
    }
    return true;
}

static void count_events(struct client *client, const char *body, size_t bytes) {
    unsigned long found = 0;
    for (const char *at = body, *end = body + bytes; (at = memchr(at, '\n', (size_t)(end - at))); at++)
        found += (at == body ? client->before : at[-1]) == '\n';
    client->before = body[bytes - 1];
    chunks += found;
    if (is_measured(now_ns()))
        chunks_measured += found;
}

/* Whether the head is there as a whole; `used` is how much of the piece belongs to it. */
static bool read_head(struct client *client, const char *piece, size_t bytes, size_t *used) {
    size_t room = sizeof client->head - 1 - client->head_bytes, before = client->head_bytes;
    size_t taken = bytes < room ? bytes : room;
    memcpy(client->head + client->head_bytes, piece, taken);
    client->head_bytes += taken;
    client->head[client->head_bytes] = '\0';
    char *end = strstr(client->head, "\r\n\r\n");
    if (end == NULL) {
        *used = taken;
        return false;
    }
    end[2] = '\0';
    *used = (size_t)(end - client->head) + 4 - before;
    const char *length = strcasestr(client->head, "\r\ncontent-length:");
    client->part = length ? BODY : CHUNK_SIZE;
    client->part_left_bytes = length ? strtoul(length + strlen("\r\ncontent-length:"), NULL, 10) : 0;
    client->before = '\0';
    return true;
}

/* One byte of what is between the chunks. */
static void read_framing(struct client *client, char byte) {
    if (client->part == CHUNK_SIZE && byte != '\n') {
        int digit = byte >= 'a' ? byte - 'a' + 10 : byte >= 'A' ? byte - 'A' + 10 : byte - '0';
        if (byte != '\r')
            client->part_left_bytes = client->part_left_bytes * 16 + (size_t)digit;
    } else if (client->part == CHUNK_SIZE) {
        client->part = client->part_left_bytes > 0 ? CHUNK : LAST_END;
    } else if (client->part == CHUNK_END && byte == '\n') {
        client->part = CHUNK_SIZE;
    }
}

/* Whether the answer is complete with this. */
static bool read_answer(struct client *client, const char *piece, size_t bytes) {
    while (bytes > 0) {
        size_t used = 1;
        if (client->part == HEAD) {
            bool is_whole = read_head(client, piece, bytes, &used);
            if (is_whole && client->part == BODY && client->part_left_bytes == 0)
                return true;
        } else if (client->part == BODY || client->part == CHUNK) {
            used = bytes < client->part_left_bytes ? bytes : client->part_left_bytes;
            count_events(client, piece, used);
            client->part_left_bytes -= used;
            if (client->part_left_bytes == 0 && client->part == BODY)
                return true;
            if (client->part_left_bytes == 0)
                client->part = CHUNK_END;
        } else if (client->part == LAST_END && *piece == '\n') {
            return true;
        } else {
            read_framing(client, *piece);
        }
        piece += used;
        bytes -= used;
    }
    return false;
}

static void record(struct client *client, uint64_t now) {
    bool is_good = strncmp(client->head, "HTTP/1.1 200 ", 13) == 0;
    if (!is_good && failures++ == 0)
        fprintf(stderr, "%s\n", client->head);
    answers += is_good;
    if (is_good && is_measured(now))
        add(&latencies, now - client->asked_ns);
}

static void reconnect(struct client *client) {
    failures++;
    close(client->descriptor);
    open_connection(client);
}

/* Whether the client goes on. */
static bool hear(struct client *client) {
    static char piece[READ_BYTES];
    ssize_t got = read(client->descriptor, piece, sizeof piece);
    uint64_t now = now_ns();
    if (got < 0 && errno == EAGAIN)
        return true;
    if (got > 0) {
        if (!client->is_answering && is_measured(now))
            add(&first_bytes, now - client->asked_ns);
        client->is_answering = true;
        if (!read_answer(client, piece, (size_t)got))
            return true;
        record(client, now);
    } else {
        reconnect(client);
    }
    while (now < ends_ns && !ask(client))
        reconnect(client);
    return now < ends_ns;
}

static void write_request(const char *file_name) {
    char *body = calloc(1, MOST_BODY_BYTES);
    FILE *file = fopen(file_name, "r");
    if (body == NULL || file == NULL)
        fail(file_name);
    size_t body_bytes = fread(body, 1, MOST_BODY_BYTES - 1, file);
    fclose(file);
    request_bytes = (size_t)asprintf(
        &request,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: load\r\nAccept: */*\r\n"
        "Authorization: Bearer none\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
        body_bytes, body
    );
    free(body);
}

static void report(double seconds) {
    sort(&latencies);
    sort(&first_bytes);
    printf(
        "{\"answers\": %lu, \"chunks\": %lu, \"failures\": %lu, \"answers_per_second\": %.1f, \"chunks_per_second\": %.1f, "
        "\"p50_us\": %.1f, \"p99_us\": %.1f, \"first_byte_p50_us\": %.1f}\n",
        answers, chunks, failures, (double)latencies.count / seconds, (double)chunks_measured / seconds,
        quantile_us(&latencies, 0.5), quantile_us(&latencies, 0.99), quantile_us(&first_bytes, 0.5)
    );
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fputs("load TCP_PORT|UNIX_PATH CLIENTS SECONDS BODY_FILE\n", stderr);
        return 2;
    }
    target = argv[1];
    size_t client_count = strtoul(argv[2], NULL, 10), asking = client_count;
    double seconds = strtod(argv[3], NULL);
    write_request(argv[4]);
    events = epoll_create1(EPOLL_CLOEXEC);
    struct client *clients = calloc(client_count, sizeof *clients);
    uint64_t began_ns = now_ns();
    measured_from_ns = began_ns + (uint64_t)(seconds * WARM_UP * 1e9);
    ends_ns = began_ns + (uint64_t)(seconds * 1e9);
    for (size_t index = 0; index < client_count; index++) {
        open_connection(&clients[index]);
        while (!ask(&clients[index]))
            reconnect(&clients[index]);
    }
    struct epoll_event happened[MOST_EVENTS];
    while (asking > 0) {
        int count = epoll_wait(events, happened, MOST_EVENTS, 1000);
        for (int index = 0; index < count; index++)
            asking -= !hear(happened[index].data.ptr);
        if (now_ns() > ends_ns + PATIENCE_NS) {
            failures += asking;
            break;
        }
    }
    report(seconds * (1 - WARM_UP));
}
