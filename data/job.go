package data

import (
	"io"
	"strings"

	"lorad/job"
)

// OptionsOf are the options that a job asks for.
func OptionsOf(j job.Job) Options {
	column, _ := strings.CutPrefix(j.Difficulty, job.DifficultyColumn)
	if j.Difficulty == job.DifficultyHeuristic {
		column = ""
	}
	return Options{SequenceLen: j.SequenceLen, Excess: j.ExcessLengthStrategy, TrainOnInputs: j.TrainOnInputs,
		ValSetSize: j.ValSetSize, Seed: j.Seed, Difficulty: column, TaskPrefix: j.TaskPrefix, MixTemperature: j.MixTemperature}
}

// SourcesOf are the files that a job names: datasets, then test_datasets. open opens a path as it is written in the job.
func SourcesOf(j job.Job, open func(path string) (io.ReadCloser, error)) []Source {
	var out []Source
	for _, d := range j.Datasets {
		out = append(out, sourceOf(d, open))
	}
	for _, d := range j.TestDatasets {
		s := sourceOf(d, open)
		s.HeldOut = true
		out = append(out, s)
	}
	return out
}

func sourceOf(d job.Dataset, open func(string) (io.ReadCloser, error)) Source {
	return Source{
		Name:   d.Path,
		Open:   func() (io.ReadCloser, error) { return open(d.Path) },
		Format: d.Type, Wording: Wording{d.PromptTemplate, d.CompletionTemplate}, Task: d.Task, Weight: d.Weight,
		Fields: Fields{Text: d.FieldText, Prompt: d.FieldPrompt, Completion: d.FieldCompletion,
			Instruction: d.FieldInstruction, Input: d.FieldInput, Output: d.FieldOutput, System: d.FieldSystem,
			Messages: d.FieldMessages, Role: d.FieldRole, Content: d.FieldContent, Difficulty: d.FieldDifficulty},
	}
}
