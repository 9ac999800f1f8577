// Command worldgen writes what the embedded base is made of: the pretraining corpus, the legal records and the tokenizer.
//
//	worldgen general --seed 1 --docs 60000   {"text": ...} lines on stdout
//	worldgen questions --seed 3 --docs 60000 {"prompt": passage, "completion": questions with answers} lines on stdout
//	worldgen legal --split train|heldout     {"prompt", "completion", ...} lines on stdout
//	worldgen tokenizer --out DIR             tokenizer.json and its companions, and config.json
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"lorad/internal/bpe"
	"lorad/internal/world"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "worldgen:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: worldgen general|questions|legal|tokenizer [flags]")
	}
	out := bufio.NewWriterSize(stdout, 1<<20)
	var err error
	switch args[0] {
	case "general":
		err = general(args[1:], out)
	case "questions":
		err = questions(args[1:], out)
	case "legal":
		err = legal(args[1:], out)
	case "tokenizer":
		err = tokenizer(args[1:])
	default:
		err = fmt.Errorf("unknown subject %q: general, questions, legal or tokenizer", args[0])
	}
	if err != nil {
		return err
	}
	return out.Flush()
}

func general(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("general", flag.ContinueOnError)
	seed := flags.Uint64("seed", 1, "another seed is a held-out corpus")
	docs := flags.Int("docs", 60000, "number of documents")
	if err := flags.Parse(args); err != nil {
		return err
	}
	enc := encoder(out)
	for doc := range world.General(*seed, *docs) {
		if err := enc.Encode(struct {
			Text string `json:"text"`
		}{doc}); err != nil {
			return err
		}
	}
	return nil
}

// questions writes the second stage of pretraining: what is given is read, what follows from it is learnt. Names in a
// passage are chance, and a stage that does not try to learn them sees what can be learnt and nothing else. All roll calls
// are taken, and of the documents that ask something one in five.
func questions(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("questions", flag.ContinueOnError)
	seed := flags.Uint64("seed", 3, "seed of the documents")
	docs := flags.Int("docs", 60000, "number of documents to take them from")
	if err := flags.Parse(args); err != nil {
		return err
	}
	enc := encoder(out)
	i := 0
	for doc := range world.General(*seed, *docs) {
		given, asked, ok := strings.Cut(doc, "\n")
		asks := strings.HasPrefix(asked, "Question:")
		if i++; !ok || asks && i%5 > 0 {
			continue
		}
		if err := enc.Encode(struct {
			Prompt     string `json:"prompt"`
			Completion string `json:"completion"`
		}{given + "\n", asked}); err != nil {
			return err
		}
	}
	return nil
}

func legal(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("legal", flag.ContinueOnError)
	split := flags.String("split", "train", "train or heldout")
	seed := flags.Uint64("seed", 1, "seed of the cases")
	if err := flags.Parse(args); err != nil {
		return err
	}
	records, err := world.Legal(*seed, world.Split(*split))
	if err != nil {
		return err
	}
	enc := encoder(out)
	for _, r := range records {
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

func tokenizer(args []string) error {
	flags := flag.NewFlagSet("tokenizer", flag.ContinueOnError)
	dir := flags.String("out", "", "folder to write (made if missing)")
	seed := flags.Uint64("seed", 1, "seed of the general text")
	docs := flags.Int("docs", 20000, "number of documents to train on")
	vocab := flags.Int("vocab", bpe.VocabSize, "vocabulary size with the special tokens")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dir == "" {
		return fmt.Errorf("tokenizer: --out DIR is missing")
	}
	tok := bpe.Train(world.General(*seed, *docs), *vocab)
	return bpe.Write(*dir, tok)
}

func encoder(out io.Writer) *json.Encoder {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc
}
