//go:build race

package recipe_test

const raced = true
