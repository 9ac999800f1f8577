// Command build makes the stand-in GPU's libraries and prints their folder, for LD_LIBRARY_PATH.
package main

import (
	"fmt"
	"log"

	"lorad/engine/cuda/standin"
)

func main() {
	dir, err := standin.Build(false)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(dir)
}
