"""Causes beside the guide's sixteen: memory, numbers, data, weights, machine."""

from tinyworld.doctor.causes import Cause, Facts
from tinyworld.doctor.modules import MISSING_MODULE

BLACK_DB = (3.5, 6.0)
"""PSNR of a black or collapsed picture against ordinary video: the guide's runs measured 4.2 dB, uniform pixels give 4.8."""
SHIFTED_DB = (9.0, 11.0)
"""The guide's twin measured 10.0 dB where the decoded frames were compared with pictures three frames later."""
PSNR = r"(?i)(?<!baseline: )\bpsnr(?![a-z_])[^\d\n+-]{0,12}(?P<db>\d+(?:\.\d+)?)"

BECAME = "is|are|was|were|be|became|becomes|went|goes|turned|turns|to"
NO_ROUTE = "Max retries exceeded|Failed to resolve|Failed to connect|ConnectionError|Connection refused|timed out"


def _black(facts: Facts) -> Facts | None:
    return {} if BLACK_DB[0] <= float(facts["db"]) < BLACK_DB[1] else None


def _shifted(facts: Facts) -> Facts | None:
    return {} if SHIFTED_DB[0] <= float(facts["db"]) <= SHIFTED_DB[1] else None


MEMORY = (
    Cause(
        slug="gpu-memory",
        title="The GPU has too little memory for this step",
        patterns=(
            r"CUDA out of memory",
            r"OutOfMemoryError",
            r"CUBLAS_STATUS_ALLOC_FAILED",
            r"GPU OOM at step",
            r"does not fit into memory even with one clip",
            r"the largest micro-batch does not fit the memory of",
        ),
        why="Activations grow with clips x frames x height x width; validation and Seraena's replay buffer come on "
        "top.",
        prevented="`tinyworld check RECIPE --gpu_memory 40GiB` counts what a run holds before anything is loaded, and names what "
        "would fit. With strategy ddp, too little memory on one rank makes all take smaller parts of a batch.",
        now="What `check` proposes; else in this order: --gradient_checkpointing true; "
        "--train_batch_size 1 with --gradient_accumulation_steps "
        "doubled; --validation_batch_size 1; --seraena_buffer_device cpu; fewer n_frames or a smaller height and "
        "width.",
    ),
    Cause(
        slug="shared-memory",
        title="The machine's shared memory (/dev/shm) is full",
        patterns=(
            r"insufficient shared memory",
            r"unable to (?:open|allocate|mmap).{0,40}shared memory",
            r"No space left on device.{0,80}/dev/shm",
            r"/dev/shm.{0,80}No space left on device",
            r"DataLoader worker.{0,60}Bus error",
        ),
        why="The reading processes hand batches over through /dev/shm, which containers keep at 64 MiB unless told "
        "otherwise.",
        prevented="Nothing in tinyworld can enlarge it; --num_workers 0 does without it.",
        now="docker run --shm-size=16g (or --ipc=host); or --num_workers 0, or a smaller --prefetch_factor.",
    ),
    Cause(
        slug="worker-killed",
        title="A process was killed for lack of main memory",
        patterns=(
            r"DataLoader worker \(pid.{0,40}killed by signal: Killed",
            r"Out of memory: Killed process",
            r"oom-kill",
            r"exitcode\s*:\s*-9\b",
        ),
        why="Each reading process holds decoded clips; num_workers, prefetch_factor and frame_cache_mb multiply.",
        prevented="frame_cache_mb is a limit per process, and a killed run resumes from its newest complete "
        "checkpoint.",
        now="--num_workers 2 --prefetch_factor 1 --frame_cache_mb 0, a --seraena_buffer_mb that fits, then "
        "--resume_from_checkpoint latest.",
    ),
    Cause(
        slug="disk-full",
        title="The disk is full",
        patterns=(
            r"No space left on device",
            r"Disk quota exceeded",
            r"PytorchStreamWriter failed writing file",
            r"the disk of \S+ is full",
        ),
        why="Checkpoints and caches need room for one more than are kept.",
        prevented="A checkpoint that could not be written whole does not appear; the earlier ones stay.",
        now="tinyworld checkpoint prune RUN --keep 2, or --output_dir on another disk; then "
        "--resume_from_checkpoint latest. Keep fewer with --checkpoints_total_limit 2.",
    ),
)

LEARNING = (
    Cause(
        slug="non-finite",
        title="Loss or gradients are not finite (NaN or infinity)",
        patterns=(
            r"steps in a row up to step \d+ had a non-finite",
            r"step \d+ skipped on all ranks",
            r"Loss is not finite",
            r"Gradient norm is not finite",
            rf"(?i)\bloss(?:es)?\b(?:\W+(?:{BECAME}))*\W{{1,3}}(?:nans?|inf|infinity|infinite)\b",
            rf"(?i)\bgrad(?:ient)?(?:s|[ _]norm)?\b(?:\W+(?:{BECAME}))*\W{{1,3}}nans?\b",
            r"(?i)(?<!\bno )\bnans?\b\W{1,3}(?:(?:in|of|for|the)\W)*(?:loss(?:es)?|grad(?:ient)?s?)\b",
        ),
        why="Usual causes: a learning rate that is too high, a damaged clip, or a number type with too small a "
        "range (fp16).",
        prevented="One verdict for all ranks: a step with a broken number is skipped everywhere or nowhere, and never "
        "reaches the weights. Its clips are named in journal.jsonl, what is needed to take it once more is kept in "
        "capsules/, and max_skipped_steps ends a run that no longer learns.",
        now="Look for damaged clips: tinyworld data scan DATA_ROOT --deep. Else --learning_rate at a tenth; a smaller "
        "--seraena_loss_weight, if there is Seraena; or --mixed_precision no. A reference VAE in fp16: --ref_vae_dtype "
        "bf16. This takes the skipped step once more, and names the sample and the layer:\n"
        "$ tinyworld replay output/<run>/capsules/step-<N>",
    ),
    Cause(
        slug="black-output",
        title="A PSNR near 4 dB: the pictures are black or collapsed",
        patterns=(PSNR,),
        fits=_black,
        newest_only=True,
        why="{db} dB is what a black picture scores. Two things lead there: training through a clamp, which stops "
        "all learning where the output is below 0, and a reconstruction weight that the other terms outweigh (0.1 "
        "against 1).",
        prevented="Training sees the unclamped output; every PSNR stands beside that of the clip's mean colour; a "
        "reconstruction weight below another term's is warned about before the run.",
        now="--reconstruction_loss_weight 10 --encoder_loss_weight 0.1 --decoder_loss_weight 0.1 --learning_rate "
        "1e-4, and look at the side-by-side clips in previews/.",
    ),
    Cause(
        slug="shifted-frames",
        title="A PSNR near 10 dB: perhaps the decoded frames are compared with the wrong ones",
        patterns=(PSNR + r"(?!.*baseline)",),
        fits=_shifted,
        newest_only=True,
        why="Earlier validation compared 9 decoded frames with input frames 3 to 11, while training used 0 to 8. "
        "{db} dB fits that, or a model that has just begun.",
        prevented="One plan says which frame each decoded frame is about; training and validation both ask it, and "
        "whole clips are measured.",
        now="tinyworld evaluate VIDEO --model WEIGHTS measures the same weights with the right frames.",
    ),
    Cause(
        slug="old-weights",
        title="The loss weights that are known to fail",
        patterns=(r"reconstruction_loss_weight['\"]?\s*[=:]\s*0\.1\b",),
        why="With reconstruction at 0.1 and encoder and decoder terms at 1 the guide's runs stayed at 4.2 dB.",
        prevented="A reconstruction weight below another term's is warned about before the run.",
        now="--reconstruction_loss_weight 10 --encoder_loss_weight 0.1 --decoder_loss_weight 0.1.",
    ),
    Cause(
        slug="reference-vae-noise",
        title="The reference VAE failed, and random latents stood in for it",
        patterns=(
            r"(?i)(?:using|returning|fall\w* back to) random latents?",
            r"(?i)(?:failed to load|error loading).{0,40}reference vae",
        ),
        why="Training went on against noise: the encoder was taught nothing.",
        prevented="A reference VAE that cannot be loaded or that fails stops the run. Nothing random ever stands in.",
        now="--use_ref_vae true --ref_vae_path FOLDER, checked with tinyworld check RECIPE; or --use_ref_vae false.",
    ),
)

INPUTS = (
    Cause(
        slug="gated-model",
        title="The hub refuses this model without permission",
        patterns=(
            r"GatedRepoError",
            r"(?:401|403) Client Error.{0,120}huggingface",
            r"You are trying to access a gated repo",
            r"RepositoryNotFoundError",
        ),
        why="The model is gated or private, or its name is misspelt; the hub answers alike.",
        prevented="It is met when the run is prepared, not after hours.",
        now="Accept the licence on the model's page and run `hf auth login`; or give a local folder: "
        "--ref_vae_path FOLDER.",
    ),
    Cause(
        slug="hub-unreachable",
        title="The hub cannot be reached from this machine",
        patterns=(
            r"(?i)couldn't connect to.{0,40}huggingface",
            rf"(?i)(?:{NO_ROUTE}).{{0,160}}huggingface",
            rf"(?i)huggingface\.co.{{0,200}}(?:{NO_ROUTE})",
            r"LocalEntryNotFoundError",
            r"OfflineModeIsEnabled",
            r"is not a local folder and is not a valid model identifier",
        ),
        why="There is no route to huggingface.co here, and the model is not in the local cache.",
        prevented="Local folders are looked for first, from the working directory and beside the recipe.",
        now="Download it where there is a network, copy the folder, and give --ref_vae_path CogVideoX-2b:\n"
        "$ hf download THUDM/CogVideoX-2b --include 'vae/*' --local-dir CogVideoX-2b",
    ),
    Cause(
        slug="wrong-weight-format",
        title="A weight file was read with the wrong reader",
        patterns=(
            r"UnpicklingError",
            r"invalid load key",
            r"Error while deserializing header",
            r"HeaderTooLarge",
            r"Weights only load failed",
        ),
        why="torch.load reads .pth files and safetensors reads .safetensors files; neither reads the other's, nor "
        "a half-downloaded file or a Git LFS pointer.",
        prevented="Published .pth and .safetensors both load, without running any code in them; tinyworld writes "
        "safetensors only.",
        now="In Python: Taehv.from_pretrained(FILE), or safetensors.torch.load_file for a .safetensors file. Check "
        "the size of the file.",
    ),
    Cause(
        slug="other-architecture",
        title="The weights belong to another architecture",
        patterns=(r"Error\(s\) in loading state_dict", r"size mismatch for \S+: copying a param"),
        why="The architecture was guessed from the file's name, or the widths differ.",
        prevented="The architecture is named (model.variant) or read from the file's own metadata, never from its "
        "name; what does not fit is refused with what the file says.",
        now="--variant taecvx for taecvx.pth, taew2_1 for Wan 2.1, and so on; leave encoder_width and "
        "decoder_widths out for published weights.",
    ),
    Cause(
        slug="broken-video",
        title="A video cannot be read",
        patterns=(
            r"moov atom not found",
            r"Invalid data found when processing input",
            r"clip set aside: ",
            r"cannot be decoded",
        ),
        why="The file is cut off or damaged, or is no video.",
        prevented="All files are probed before training; damaged ones are named and left out up to "
        "data.quarantine_budget.",
        now="tinyworld data scan DATA_ROOT --deep names every one. Copy them anew, remove them, or raise "
        "--quarantine_budget.",
    ),
    Cause(
        slug="folder-in-use",
        title="Two training processes want the same run folder",
        patterns=(r"is in use by another training process", r"already holds a run\."),
        why="A run folder has one writer at a time, and a finished run is not written over.",
        prevented="It is refused at the start, before anything is written.",
        now="--run_name NAME --resume_from_checkpoint latest to go on with that run, or another --run_name.",
    ),
)

MACHINE = (
    Cause(
        slug="compiler",
        title="DeepSpeed builds parts of itself when it starts, and a compiler is missing",
        patterns=(
            r"[Nn]inja is required to load C\+\+ extensions",
            r"Error building extension",
            r"No such file or directory: '(?:g\+\+|c\+\+|ninja|[^']*nvcc)'",
            r"(?:g\+\+|ninja): (?:command )?not found",
            r"CUDA_HOME environment variable is not set",
            r"MissingCUDAException|Unable to JIT load the \w+ op",
        ),
        why="It needs g++, ninja and, for GPU parts, the CUDA toolkit.",
        prevented="This version trains without DeepSpeed: the model has 11 million parameters, and each GPU holds "
        "it whole.",
        now="Leave DeepSpeed out (this version has no key for it). For other code: apt install g++ ninja-build, "
        "and set CUDA_HOME.",
    ),
    Cause(
        slug="gpu-unusable",
        title="PyTorch cannot use the GPU of this machine",
        patterns=(
            r"PyTorch sees no CUDA device",
            r"Torch not compiled with CUDA enabled",
            r"Found no NVIDIA driver",
            r"NVIDIA driver on your system is too old",
            r"no kernel image is available for execution",
            r"CUDA driver version is insufficient",
        ),
        why="The driver, the card and the build of PyTorch do not fit together, or the build is one for CPUs.",
        prevented="--device cuda is refused at the start where there is none; --device auto then takes the CPU.",
        now="nvidia-smi shows the driver. Install the CUDA build of PyTorch for it, or train with --device cpu.",
    ),
    Cause(
        slug="port-taken",
        title="The port for the processes to meet at is taken",
        patterns=(r"EADDRINUSE", r"(?i)address already in use"),
        why="Another torchrun or TensorBoard on this machine uses it, perhaps one that was not ended.",
        prevented="Nothing in tinyworld opens a port; torchrun and TensorBoard do.",
        now="torchrun --standalone picks a free port; for TensorBoard: tensorboard --logdir output --port 6007.",
    ),
    Cause(
        slug="nccl",
        title="The GPUs cannot talk to each other (NCCL)",
        patterns=(
            r"NCCL error",
            r"nccl(?:System|Internal|Remote|UnhandledCuda|Invalid)\w*Error?",
            r"NCCL WARN .{0,80}(?:failed|error)",
        ),
        why="Mostly a process that died before, too little shared memory in a container, or a network interface "
        "that is not the right one.",
        prevented="Nothing in tinyworld can mend the machine; whatever one rank raises on purpose reaches all ranks.",
        now="Look for the first error of any rank. Then NCCL_DEBUG=INFO names the part; docker run --ipc=host, or "
        "NCCL_SOCKET_IFNAME=<interface>.",
    ),
    Cause(
        slug="opencv-libraries",
        title="OpenCV misses a system library",
        patterns=(r"libGL\.so\.1", r"libgthread-2\.0\.so", r"No module named 'cv2'"),
        why="opencv-python needs the libraries of a desktop; servers have none.",
        prevented="tinyworld does not use OpenCV: videos are read and written by PyAV, which brings its own FFmpeg.",
        now="pip install tinyworld into an environment of its own. For other code: opencv-python-headless.",
    ),
    Cause(
        slug="torchvision",
        title="torchvision does not fit the installed PyTorch",
        patterns=(
            r"operator torchvision::\w+ does not exist",
            r"No module named 'torchvision'",
            r"torchvision.{0,80}undefined symbol",
            r"Couldn't load custom C\+\+ ops",
        ),
        why="Each torchvision belongs to one PyTorch. One that does not fit breaks diffusers and transformers, too.",
        prevented="tinyworld does not need torchvision.",
        now="pip uninstall torchvision, or install the version that belongs to your PyTorch.",
    ),
)

COMMON: tuple[Cause, ...] = (*MEMORY, *LEARNING, *INPUTS, *MACHINE, MISSING_MODULE)
