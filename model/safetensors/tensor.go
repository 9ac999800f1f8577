package safetensors

// Tensor is one named f32 tensor, row-major.
type Tensor struct {
	Name  string
	Shape []int
	Data  []float32
}
