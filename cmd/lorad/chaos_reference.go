package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	pb "google.golang.org/protobuf/proto"

	"lorad/internal/durable"
	"lorad/job"
	"lorad/proto"
)

// reference is the undisturbed run with its ledger. Several series of one program train the same job: what the first one
// found is kept in the output folder for the others.
func (c chaosCmd) reference(ctx context.Context, req *proto.SubmitRequest) (*proto.Run, error) {
	dir := outputOf(req)
	kept, key := filepath.Join(filepath.Dir(dir), "clean.run"), ""
	if c.Series != "" {
		key = referenceKey(req)
		if run := keptReference(kept, key); run != nil && weights(dir) == hex.EncodeToString(run.AdapterSha256) {
			fmt.Fprintln(os.Stderr, "the right result is known from the last series")
			return run, nil
		}
	}
	if err := clearAdapter(dir); err != nil {
		return nil, err
	}
	fmt.Fprintln(os.Stderr, "training undisturbed on one node, to know the right result")
	run, err := c.undisturbed(ctx, req)
	if err == nil && key != "" {
		var b []byte
		if b, err = pb.Marshal(run); err == nil {
			err = durable.WriteFile(kept, append([]byte(key), b...), 0o644)
		}
	}
	return run, err
}

// referenceKey stands for the job and the very program, which has the data in it; "" if it cannot be read.
func referenceKey(req *proto.SubmitRequest) string {
	program, err := os.Executable()
	if err != nil {
		return ""
	}
	sum := fileSHA256(program)
	if sum == "" {
		return ""
	}
	h := sha256.Sum256([]byte(sum + req.JobYaml))
	return hex.EncodeToString(h[:])
}

func keptReference(path, key string) *proto.Run {
	data, err := os.ReadFile(path)
	if err != nil || key == "" || !strings.HasPrefix(string(data), key) {
		return nil
	}
	run := &proto.Run{}
	if pb.Unmarshal(data[len(key):], run) != nil {
		return nil
	}
	return run
}

// undisturbed trains on one node and returns the run with its ledger.
func (c chaosCmd) undisturbed(ctx context.Context, req *proto.SubmitRequest) (*proto.Run, error) {
	cluster, err := startCluster(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer cluster.stop()
	run, _, err := demoCmd{}.train(ctx, cluster, req)
	if err != nil {
		return nil, err
	}
	cl, err := dial(ctx, cluster.nodes[0].dir)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return cl.GetRun(ctx, &proto.GetRunRequest{Run: run.Spec.Run})
}

func outputOf(req *proto.SubmitRequest) string {
	j, err := job.Parse([]byte(req.JobYaml))
	if err != nil {
		return req.Dir
	}
	return j.OutputDir
}

// weights is the SHA-256 of what a run wrote, read from the disk.
func weights(dir string) string {
	for _, name := range []string{"adapter_model.safetensors", "model.safetensors"} {
		if sum := fileSHA256(filepath.Join(dir, name)); sum != "" {
			return sum
		}
	}
	return ""
}

// fileSHA256 is "" if the file cannot be read.
func fileSHA256(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}
