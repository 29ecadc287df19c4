/* A stand-in for NVIDIA's libnvidia-ml.so.1, with the functions that mmd/machine.py and the hooks need.
 *
 * It reads the file named by MMD_FAKE_NVML at each call; without that variable no driver is loaded. A line "init CODE"
 * makes nvmlInit fail with that code. A line "card UUID TOTAL_BYTES MAJOR.MINOR NAME" describes a GPU, in order; without
 * such lines the GPUs are those of CARDS. Each line that begins with a digit, or is "lost", is a GPU, in order:
 * "USED_BYTES [PID:BYTES ...]"; BYTES of "-" means that the driver does not report them.
 * "@PID:BYTES" is a process that is listed only while it runs, with memory that counts as used on top of USED_BYTES;
 * "+PID:BYTES" counts in the same way and is listed until tests/fakes/driver.py removes it, some time after its death;
 * "%PID:BYTES" is one that draws and does not compute; "!PID:BYTES" is one that has ended by the second query. A GPU whose
 * line is "lost" has fallen off the bus. With a line "untold" the driver reports the memory of no process. Without any
 * process that draws the driver has no list of those, as on WSL. A line "waits FIFO" makes each call block until the FIFO
 * is opened for writing. A line "lags" is for the engines: see tests/fakes/vram.py.
 *
 *     cc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 nvml.c
 */
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    GPU_IS_LOST = 15,
    MAX_GPUS = 16,
    LINE = 16384
};

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } Process;
typedef struct { char uuid[64]; unsigned long long total; int major, minor; char name[64]; } Card;

static const Card CARDS[] = {
    {"GPU-00000000-0000-0000-0000-000000004070", 12878610432ULL, 8, 9, "NVIDIA GeForce RTX 4070"},
    {"GPU-00000000-0000-0000-0000-000000003090", 25769803776ULL, 8, 6, "NVIDIA GeForce RTX 3090"},
};

typedef struct {
    int init, is_told;
    unsigned gpus;
    Card card;       /* of the wanted GPU */
    char line[LINE]; /* of the wanted GPU */
} State;

static int times_asked;

/* Read the state, with the card and the line of GPU `wanted`. */
static void read_state(unsigned wanted, State *state) {
    const char *path = getenv("MMD_FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    static __thread char current[LINE];
    char fifo[LINE];
    unsigned cards = 0;
    Card card;
    memset(state, 0, sizeof *state);
    state->is_told = 1;
    state->init = path ? SUCCESS : DRIVER_NOT_LOADED;
    while (file && fgets(current, sizeof current, file)) {
        if (sscanf(current, "init %d", &state->init) == 1)
            continue;
        if (sscanf(current, "waits %s", fifo) == 1) {
            close(open(fifo, O_RDONLY));
            continue;
        }
        if (sscanf(current, "card %63s %llu %d.%d %63[^\n]", card.uuid, &card.total, &card.major, &card.minor, card.name) == 5) {
            if (cards++ == wanted)
                state->card = card;
            continue;
        }
        if (strncmp(current, "untold", 6) == 0)
            state->is_told = 0;
        else if ((isdigit((unsigned char)*current) || strncmp(current, "lost", 4) == 0) && state->gpus++ == wanted)
            strcpy(state->line, current);
    }
    if (file)
        fclose(file);
    if (!cards) {
        unsigned known = sizeof CARDS / sizeof *CARDS;
        state->gpus = state->gpus < known ? state->gpus : known;
        state->card = CARDS[wanted < known ? wanted : 0];
    }
}

/* The next process of a GPU's line: its pid, its bytes as a word, and its mark or 0. Returns 0 after the last, -1 where it is malformed. */
static int next_process(char **line, unsigned *pid, char bytes[32], char *kind) {
    char path[64], state;
    for (char *word; (word = strtok_r(NULL, " \n", line));) {
        *kind = strchr("@+%!", *word) ? *word : 0;
        if (sscanf(word + (*kind != 0), "%u:%31s", pid, bytes) != 2)
            return -1;
        if (*kind == '@') {
            snprintf(path, sizeof path, "/proc/%u/stat", *pid);
            FILE *stat = fopen(path, "r");
            int is_there = stat && fscanf(stat, "%*d (%*[^)]) %c", &state) == 1 && state != 'Z';
            if (stat)
                fclose(stat);
            if (!is_there)
                continue;
        }
        return 1;
    }
    return 0;
}

static unsigned index_of(void *handle) { return (unsigned)((size_t)handle - 1); }

static int copy(char *target, unsigned length, const char *text) {
    return snprintf(target, length, "%s", text) < (int)length ? SUCCESS : INSUFFICIENT_SIZE;
}

int nvmlInitWithFlags(unsigned flags) {
    static __thread State state;
    (void)flags;
    read_state(0, &state);
    return state.init;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    return code == 18 ? "Driver/library version mismatch" : code == DRIVER_NOT_LOADED ? "Driver Not Loaded" : "Unknown Error";
}

int nvmlSystemGetDriverVersion(char *text, unsigned length) { return copy(text, length, "580.95.05"); }

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = 13000;
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    static __thread State state;
    read_state(0, &state);
    *count = state.gpus;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if (index >= MAX_GPUS)
        return INVALID_ARGUMENT;
    *handle = (void *)((size_t)index + 1);
    return SUCCESS;
}

static const Card *card_of(void *gpu) {
    static __thread State state;
    read_state(index_of(gpu), &state);
    return &state.card;
}

int nvmlDeviceGetName(void *gpu, char *text, unsigned length) { return copy(text, length, card_of(gpu)->name); }
int nvmlDeviceGetUUID(void *gpu, char *text, unsigned length) { return copy(text, length, card_of(gpu)->uuid); }

int nvmlDeviceGetCudaComputeCapability(void *gpu, int *major, int *minor) {
    const Card *card = card_of(gpu);
    *major = card->major;
    *minor = card->minor;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *gpu, Memory *memory) {
    static __thread State state;
    char bytes[32], *rest, kind;
    unsigned pid;
    read_state(index_of(gpu), &state);
    if (strncmp(state.line, "lost", 4) == 0)
        return GPU_IS_LOST;
    memory->total = state.card.total;
    memory->used = strtoull(state.line, NULL, 10);
    if (strtok_r(state.line, " \n", &rest))
        while (next_process(&rest, &pid, bytes, &kind) > 0)
            if (kind == '@' || kind == '+')
                memory->used += strtoull(bytes, NULL, 10);
    memory->free = memory->total > memory->used ? memory->total - memory->used : 0;
    return SUCCESS;
}

/* The processes of a GPU's line that draw, or those that do not. */
static int list_processes(void *gpu, unsigned *count, Process *processes, int draw) {
    static __thread State state;
    char bytes[32], *rest, kind;
    unsigned pid, found = 0, room = *count;
    int more = 0;
    read_state(index_of(gpu), &state);
    if (strtok_r(state.line, " \n", &rest))
        while ((more = next_process(&rest, &pid, bytes, &kind)) > 0) {
            if ((kind == '%') != draw || (kind == '!' && times_asked > 1))
                continue;
            if (processes && found < room) {
                unsigned long long used = state.is_told && *bytes != '-' ? strtoull(bytes, NULL, 10) : ~0ULL;
                processes[found] = (Process){pid, used, ~0U, ~0U};
            }
            found++;
        }
    if (more < 0)
        return INVALID_ARGUMENT;
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *gpu, unsigned *count, Process *processes) {
    times_asked++;
    return list_processes(gpu, count, processes, 0);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *gpu, unsigned *count, Process *processes) {
    unsigned drawing = 0;
    list_processes(gpu, &drawing, NULL, 1);
    return drawing ? list_processes(gpu, count, processes, 1) : NOT_SUPPORTED;
}
