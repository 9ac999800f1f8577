package main

import "syscall"

// endWithParent has the kernel kill the node when the thread that started it ends. Go's threads end with the process,
// unless a goroutine that is locked to one ends: there is none here.
func endWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }
