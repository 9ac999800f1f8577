//go:build !linux

package main

import "syscall"

// endWithParent: elsewhere a node ends when its standard input does.
func endWithParent(*syscall.SysProcAttr) {}
