"""Carrying models into other tools: diffusers, the hub, ComfyUI, ONNX."""
