package doctor

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("free space at %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// clockError is how far off the kernel believes its clock to be at most; an error: nobody sets it.
func clockError() (time.Duration, error) {
	const unsynchronised = 5 // TIME_ERROR
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return 0, fmt.Errorf("the clock cannot be asked: %w", err)
	}
	if state == unsynchronised {
		return 0, errors.New("the clock is not known to be synchronised")
	}
	return time.Duration(t.Maxerror) * time.Microsecond, nil
}
