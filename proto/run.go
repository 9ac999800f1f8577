package proto

// HomeNode is the id of the node that writes the run's output_dir: where it was submitted, or, if that node was
// removed, the one that took its place.
func (x *Run) HomeNode() string {
	if x.GetHome() != "" {
		return x.Home
	}
	return x.GetSpec().GetHomeNode()
}

// LastStep is the step that the run ends with: that of its plan, unless an evaluation has ended it before its time.
func (x *Run) LastStep() uint64 {
	if x.GetEnded() > 0 {
		return x.Ended
	}
	return x.GetSpec().GetSteps()
}
