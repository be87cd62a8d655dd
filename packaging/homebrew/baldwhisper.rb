# Written by scripts/make_formula.py; do not edit.
class Baldwhisper < Formula
  desc "Small, fast Whisper speech recognition on Apple's MLX"
  homepage "https://github.com/baldwhisper-mlx/baldwhisper-mlx"
  license "MIT"
  head "https://github.com/baldwhisper-mlx/baldwhisper-mlx.git", branch: "main"

  depends_on arch: :arm64
  depends_on macos: :sonoma
  depends_on "python@3.13"

  # The libraries in the wheels have no room for Homebrew's longer install names.
  preserve_rpath

  def install
    system Formula["python@3.13"].opt_bin/"python3.13", "-m", "venv", libexec
    pip = [libexec/"bin/python", "-m", "pip", "install", "--disable-pip-version-check"]
    system(*pip, "--require-hashes", "--only-binary=:all:",
           "--requirement", "packaging/homebrew/requirements.txt")
    system(*pip, "--no-deps", "--no-index", "--no-build-isolation", ".")
    bin.install_symlink libexec/"bin/baldwhisper"
    generate_completions_from_executable(bin/"baldwhisper", shell_parameter_format: :click)
    pkgshare.install "examples/sample.wav"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/baldwhisper --version") unless head?
    text = shell_output("#{bin}/baldwhisper transcribe #{pkgshare}/sample.wav")
    assert_match "small model", text
  end
end
