// Package peft reads and writes LoRA adapters as the PEFT library does: adapter_config.json and adapter_model.safetensors.
//
// A file that asks for something lorad does not compute (adapters of embeddings, biases of lora_B, layers_to_transform) is refused by
// the option's name: loading it without the option would give a model that answers, but wrongly. Options lorad never reads are
// still written with PEFT's defaults, so that PEFT loads our adapters without a warning.
package peft
