//go:build !race

package recipe_test

// raced: the race detector is on, and everything takes ten times as long.
const raced = false
