package main

import "golang.org/x/sys/unix"

// limitFiles bounds the size of the files that a process writes, in bytes; below 0 as large as it likes.
func limitFiles(pid int, size int64) error {
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, nil, &limit); err != nil {
		return err
	}
	if limit.Cur = limit.Max; size >= 0 {
		limit.Cur = min(limit.Max, uint64(size))
	}
	return unix.Prlimit(pid, unix.RLIMIT_FSIZE, &limit, nil)
}
