import verifiers.v1 as vf


class SumData(vf.TaskData):
    answer: str


class SumTask(vf.Task[SumData]):
    @vf.reward(weight=1.0)
    async def right(self, task, trace) -> float:
        return float(trace.last_reply.rstrip(".").endswith(task.answer))

    @vf.reward(weight=0.2)
    async def boxed(self, trace) -> float:
        return float("\\boxed{" in trace.last_reply)


class SumsConfig(vf.TasksetConfig):
    count: int = 40


class Sums(vf.Taskset[SumTask, SumsConfig]):
    def load(self):
        for n in range(1, self.config.count + 1):
            yield SumTask(
                SumData(prompt=f"What is {n} + {n}?", system_prompt="Add.", answer=str(2 * n)), self.config.task
            )


class Opens(vf.Taskset[SumTask, SumsConfig]):
    def load(self):
        yield SumTask(SumData(prompt=None, answer="1"), self.config.task)


class Prepared(SumTask):
    async def setup(self, trace, runtime):
        pass


class Prepares(vf.Taskset[Prepared, SumsConfig]):
    def load(self):
        yield Prepared(SumData(prompt="?", answer="1"), self.config.task)
