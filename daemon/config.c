#include "daemon/config.h"

#define AT(field) offsetof(qd_settings, field)
#define MIN_MS    UINT64_C(60000)
#define DAY_MS    UINT64_C(86400000)

static const qd_conf_key k_keys[] = {
    QD_NATS_SETTINGS(qd_settings, nats, "this worker"),
    {"worker", QD_CONF_TEXT, AT(worker), "", 0, 0, NULL, false,
     "This worker's id: letters, digits, - and _. Empty: host name and instance, as in node1-gpu0."},
    {"device", QD_CONF_TEXT, AT(device), "", 0, 0, NULL, false,
     "What it computes on: cpu, or gpu0, gpu1 and so on, by PCI bus id. Empty: the instance's name."},
    {"topology", QD_CONF_TEXT, AT(topology), "", 0, 0, NULL, false,
     "Where this machine is, the most general name first, as in rack3/sw1: of the workers that offer themselves to a "
     "job for several, the nearest ones come. Host, NUMA node and PCI bridges are added below."},
    {"pin", QD_CONF_TEXT, AT(pin), "none", 0, 0, NULL, false,
     "Processors of a job's process. none: all of the service's. numa: those of the NUMA node of this worker's GPU. "
     "numa0, numa1 and so on: those of that node, as for one cpu worker a node."},
    {"gpu_health", QD_CONF_TEXT, AT(gpu_health), "", 0, 0, NULL, false,
     "GPU whose health this worker tells and minds: gpu0 is the first by PCI bus id. Empty: its own device, where that "
     "is "
     "a GPU."},
    {"nvml_library", QD_CONF_TEXT, AT(nvml_library), "libnvidia-ml.so.1", 0, 0, NULL, false,
     "NVIDIA's management library, which says how a GPU fares."},
    {"threads", QD_CONF_COUNT, AT(threads), "0", 0, 256, NULL, true,
     "Compute threads of a job; 0: one a processor. Output bytes do not depend on it."},
    {"memory", QD_CONF_BYTES, AT(memory_bytes), "192MiB", 32 << 20, 0, NULL, true,
     "Memory for a job's tiles, where the job asks for none."},
    {"output_roots", QD_CONF_TEXT, AT(output_roots), "/var/lib/quantd/output", 0, 0, NULL, false,
     "Directories, separated by colons, below which jobs may put their output; what crashes leave there is cleaned "
     "up."},
    {"source_roots", QD_CONF_TEXT, AT(source_roots), "", 0, 0, NULL, true,
     "Directories, separated by colons, below which jobs may read models. Empty: all that this user can read."},
    {"templates", QD_CONF_TEXT, AT(templates), "", 0, 0, NULL, true,
     "Directories with templates, separated by colons. Empty: those installed with this program."},
    {"api_time_zone", QD_CONF_TEXT, AT(api_time_zone), "Asia/Shanghai", 0, 0, NULL, false,
     "Time zone of the times in job logs, as the APIs show them."},
    {"lease", QD_CONF_MS, AT(lease_ms), "15s", 300, 10 * MIN_MS, NULL, false,
     "How long a job stays with a worker that is not heard of; the same on every worker."},
    {"heartbeat", QD_CONF_MS, AT(heartbeat_ms), "5s", 100, 10 * MIN_MS, NULL, true,
     "How often this worker says that it lives."},
    {"sweep", QD_CONF_MS, AT(sweep_ms), "1s", 50, MIN_MS, NULL, true,
     "How often it admits recorded jobs and looks after jobs that stand still."},
    {"drain", QD_CONF_MS, AT(drain_ms), "30s", 100, 60 * MIN_MS, NULL, true,
     "How long a stop of the service waits for the running job to reach a point from which another worker can go on."},
    {"cancel", QD_CONF_MS, AT(cancel_ms), "700ms", 50, MIN_MS, NULL, true,
     "How long a canceled job's process has to end before it is killed."},
    {"silent", QD_CONF_MS, AT(silent_ms), "5s", 1000, 10 * MIN_MS, NULL, true,
     "A job's process that is not heard of for so long is killed."},
    {"stall", QD_CONF_MS, AT(stall_ms), "10min", 1000, DAY_MS, NULL, true,
     "A job that finishes no tile for so long is killed; slow storage needs more."},
    {"node_retry", QD_CONF_MS, AT(node_retry_ms), "10min", 100, DAY_MS, NULL, false,
     "How long this worker keeps away from a job that failed on its own account: no room, no memory, a bad disk."},
    {"attempts_max", QD_CONF_COUNT, AT(attempts_max), "10", 1, 1000, NULL, false,
     "Attempts after which a job fails, where the job says nothing."},
    {"running_max", QD_CONF_COUNT, AT(running_max), "0", 0, 1000000, NULL, false,
     "Jobs of one tenant that may be queued or running at a time, where its own limits say nothing; 0: no limit."},
    {"queued_max", QD_CONF_COUNT, AT(queued_max), "0", 0, 10000000, NULL, false,
     "Jobs of one tenant that may wait; 0: no limit."},
    {"recorded_max", QD_CONF_COUNT, AT(recorded_max), "0", 0, 10000000, NULL, false,
     "Records of one tenant, ended jobs included; 0: no limit."},
    {"retention", QD_CONF_MS, AT(retention_ms), "0", 0, 3650 * DAY_MS, NULL, false,
     "How long records of ended jobs are kept; 0: for ever."},
    {"log_bytes_max", QD_CONF_BYTES, AT(log_bytes_max), "16MiB", 1 << 16, 1 << 30, NULL, true,
     "Most bytes of a job's log that are stored beside its report; the rest is in the event stream only."},
    {"log_level", QD_CONF_CHOICE, AT(log_level), "info", 0, 0, "error|warn|info|debug", true,
     "What this program logs about itself."},
    {"log_lines_per_s", QD_CONF_COUNT, AT(log_lines_per_s), "50", 0, 100000, NULL, true,
     "Most lines a second of that; more are counted. 0: no limit."},
};

const qd_conf_def qd_settings_def = {"quantd", k_keys, sizeof k_keys / sizeof k_keys[0], sizeof(qd_settings)};
