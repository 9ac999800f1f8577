package eval

import "fmt"

// Watch follows the losses of a run and says when it overfits: validation has been above its best for two evaluations in a row, by more than a
// hundredth, while the training loss has fallen since. Its zero value is ready.
type Watch struct {
	BestStep uint64  // of the smallest validation loss; 0 = there was none
	BestLoss float64 // of it

	sum    float64 // training loss since the last evaluation
	n      int
	atBest float64 // training loss up to the best evaluation
	last   float64 // up to the last
	lastV  float64 // its validation loss
	worse  int     // evaluations in a row that were worse
}

// overfitMargin is how much worse than the best counts: evaluations of a good run jump by less.
const overfitMargin = 1.01

// Take adds a step: its training loss, and its validation loss or 0.
func (w *Watch) Take(step uint64, train, val float64) {
	w.sum, w.n = w.sum+train, w.n+1
	if val == 0 {
		return
	}
	w.last, w.lastV = w.sum/float64(w.n), val
	w.sum, w.n = 0, 0
	switch {
	case w.BestStep == 0 || val < w.BestLoss:
		w.BestStep, w.BestLoss, w.atBest, w.worse = step, val, w.last, 0
	case val > overfitMargin*w.BestLoss:
		w.worse++
	default:
		w.worse = 0
	}
}

// Overfits reports whether the run overfits now.
func (w *Watch) Overfits() bool { return w.worse >= 2 && w.last < w.atBest }

// Advice is what to say of a run that overfits.
func (w *Watch) Advice() string {
	return fmt.Sprintf("overfitting: validation loss was lowest at step %d (%.4f) and is %.4f now, while training loss fell from %.4f to %.4f; "+
		"train for fewer epochs, with more or more varied data, a lower rank or learning rate, or more dropout", w.BestStep, w.BestLoss, w.lastV, w.atBest, w.last)
}
