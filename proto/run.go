package proto

// HomeNode is the id of the node that writes the run's output_dir: where it was submitted, or, if that node was
// removed, the one that took its place.
func (x *Run) HomeNode() string {
	if x.GetHome() != "" {
		return x.Home
	}
	return x.GetSpec().GetHomeNode()
}
