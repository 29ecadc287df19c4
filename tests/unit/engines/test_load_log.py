"""What engines print about memory, in lines that were seen, and what mmd reads from them."""

from __future__ import annotations

from mmd.engines.llama.breakdown_table import breakdown_in
from mmd.engines.llama.log import read_load_log
from mmd.engines.vllm import log as vllm_log
from mmd.plan.measurement import LoadLog
from mmd.quantities import GIB, MIB

B11434 = """\
0.00.004.256 I srv    load_model: loading model '/tmp/tiny.gguf'
0.00.009.431 I srv    load_model: initializing, n_slots = 4, n_ctx_slot = 8192, kv_unified = 'true'
0.00.011.076 I srv  llama_server: model loaded
"""

# llama.cpp of 2025, Qwen3-30B on one GPU.
B6000 = """\
load_tensors: offloaded 49/49 layers to GPU
load_tensors:        CUDA0 model buffer size = 17524.41 MiB
load_tensors:   CPU_Mapped model buffer size =   166.92 MiB
llama_context: n_ctx         = 16384
llama_context: n_ctx_per_seq = 16384
llama_context:  CUDA_Host  output buffer size =     0.58 MiB
llama_kv_cache_unified:      CUDA0 KV buffer size =  1536.00 MiB
llama_context:      CUDA0 compute buffer size =   300.75 MiB
llama_context:  CUDA_Host compute buffer size =    36.01 MiB
"""

VLLM = """\
(EngineCore pid=1) INFO 11-21 05:00:00 [gpu_model_runner.py:5150] Model loading took 15.27 GiB memory and 4.2 seconds
(EngineCore pid=1) INFO 11-21 05:00:09 [gpu_worker.py:760] Available KV cache memory: 4.51 GiB
(EngineCore pid=1) INFO 11-21 05:00:09 [kv_cache_utils.py:2327] GPU KV cache size: 32,832 tokens, \
Maximum concurrency for 16,384 tokens per request: 2.00x
(EngineCore pid=1) INFO 11-21 05:00:12 [gpu_worker.py:972] CUDA graph pool memory: 0.52 GiB (actual), \
0.4 GiB (estimated), difference: 0.12 GiB (23.0%).
(EngineCore pid=1) INFO 11-21 05:00:12 [gpu_worker.py:1036] Free memory on device (23.1/23.6 GiB) on startup. Desired \
GPU memory utilization is (0.92, 21.71 GiB). Actual usage is 15.5 GiB for consumed memory (weights + non-torch), 1.66 \
GiB for peak activation, and 0.52 GiB for CUDAGraph memory. Replace gpu_memory_utilization config (…)
"""


def test_the_context_that_llama_server_chose() -> None:
    assert read_load_log(B11434.splitlines()) == LoadLog(context=8192)


def test_slots_with_a_cache_each_have_the_context_together() -> None:
    line = "srv load_model: initializing, n_slots = 4, n_ctx_slot = 2048, kv_unified = 'false'"
    assert read_load_log([line]).context == 8192


def test_buffers_on_the_gpu_leave_out_what_is_in_ram() -> None:
    log = read_load_log(B6000.splitlines())
    assert log.context == 16384
    assert log.weights_bytes == int(17524.41 * MIB)
    assert (log.kv_bytes, log.state_bytes) == (1536 * MIB, 0)
    assert log.compute_bytes == int(300.75 * MIB)


def test_buffers_of_several_gpus_are_added() -> None:
    log = read_load_log(["x: CUDA0 model buffer size = 100.00 MiB", "x: CUDA1 model buffer size = 50.00 MiB"])
    assert log.weights_bytes == 150 * MIB


def test_buffers_without_a_gpu_are_those_in_ram() -> None:
    lines = [
        "0.0 I load_tensors:   CPU_Mapped model buffer size =     1.50 MiB",
        "0.0 I load_tensors:   CPU_REPACK model buffer size =     3.00 MiB",
        "0.0 I load_tensors:          AMX model buffer size =     4.00 MiB",
        "0.0 I llama_kv_cache:        CPU KV buffer size =     0.25 MiB",
        "0.0 I llama_memory_recurrent:        CPU RS buffer size =     0.50 MiB",
        "0.0 I sched_reserve:        CPU compute buffer size =     2.00 MiB",
        "0.0 I llama_context:        CPU  output buffer size =     1.00 MiB",
    ]
    log = read_load_log(lines)
    assert (log.weights_bytes, log.kv_bytes, log.state_bytes, log.compute_bytes) == (
        MIB * 17 // 2,
        MIB // 4,
        MIB // 2,
        3 * MIB,
    )


def test_vllm() -> None:
    log = vllm_log.read_load_log(VLLM.splitlines())
    assert log.context == 16384
    assert log.weights_bytes == int(15.27 * GIB)
    assert log.compute_bytes == int(1.66 * GIB) - int(0.4 * GIB)  # without the expected size of its graphs
    assert log.pool_bytes == int(4.51 * GIB)
    assert log.graphs_bytes == int(0.52 * GIB)
    assert log.non_torch_bytes == int(15.5 * GIB) - int(15.27 * GIB)
    assert log.kv_bytes is None


def test_a_log_that_says_nothing() -> None:
    assert read_load_log(["INFO: hello", ""]) == LoadLog()
    assert vllm_log.read_load_log(["INFO: hello", ""]) == vllm_log.VllmLoadLog()


def test_the_engines_table() -> None:
    said = (
        '{"type":"log","time":1,"level":"info","msg":"hello"}',
        '{"type":"fit_memory_breakdown","data":{"unit":"MiB","rows":['
        '{"kind":"device","name":"CUDA0","description":"RTX 4090","total":24081,"free":23600,"self":17000,'
        '"model":15000,"context":1800,"compute":200,"unaccounted":481},'
        '{"kind":"device","name":"CUDA1","total":1,"free":1,"self":1,"model":5,"context":6,"compute":7,"unaccounted":0},'
        '{"kind":"host","name":"Host","self":300,"model":250,"context":0,"compute":50}]}}',
    )
    found = breakdown_in(said)
    assert found is not None and found.has_devices
    assert (found.decisive.model_bytes, found.decisive.context_bytes) == (15005 * MIB, 1806 * MIB)
    assert found.decisive.compute_bytes == 207 * MIB
    assert found.host_bytes == 300 * MIB


def test_a_machine_without_gpu_has_its_table_too() -> None:
    row = '{"kind":"host","name":"Host","self":37269,"model":30973,"context":6144,"compute":152}'
    found = breakdown_in([f'{{"type":"fit_memory_breakdown","data":{{"unit":"MiB","rows":[{row}]}}}}'])
    assert found is not None and not found.has_devices
    assert found.decisive.model_bytes == 30973 * MIB


def test_tables_of_another_version_are_none() -> None:
    assert breakdown_in(['{"type":"fit_memory_breakdown","data":{"unit":"GiB","rows":[]}}']) is None
    assert breakdown_in(['{"type":"fit_memory_breakdown","data":{"unit":"MiB","rows":[{"kind":"host"}]}}']) is None
    assert breakdown_in(["fit_memory_breakdown: | x |", '"fit_memory_breakdown"']) is None
