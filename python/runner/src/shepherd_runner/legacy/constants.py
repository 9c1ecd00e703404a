"""Names of the files and directories of a job, as the first shepherd's ``shepherd.constants`` has them."""

JOB_STATUS_FILE = "job_status.json"
DEFAULT_PAYLOAD_FILE = "input"
DEFAULT_OUTPUT_FILE = "output"
INPUT_DIR = "inputs"
OUTPUT_DIR = "outputs"
DEFAULT_PAYLOAD_PATH = f"{INPUT_DIR}/{DEFAULT_PAYLOAD_FILE}"
DEFAULT_OUTPUT_PATH = f"{OUTPUT_DIR}/{DEFAULT_OUTPUT_FILE}"
