// Command standin builds the stand-in GPU and prints the folder of its libraries, for LD_LIBRARY_PATH:
//
//	LD_LIBRARY_PATH=$(go run ./scripts/standin) lorad doctor
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
