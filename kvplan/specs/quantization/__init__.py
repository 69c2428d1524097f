"""What ``quantization_config`` says of the files of a checkpoint: which tensor is stored in which format."""
